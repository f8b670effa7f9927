"""Trains teachers of several groups, each a stage with its own network and settings."""

import json
from collections.abc import Callable
from typing import Any

from edp.experiment import restore, train
from edp.experiment.create import Experiment, record_run
from edp.experiment.run import Run
from edp.runtime import checkpoint, storage
from edp.runtime.stage import Stage


def fit_groups(
    experiment: Experiment,
    stage: Stage,
    stop_requests: train.StopRequests,
    *,
    after_first: Callable[[], None] = lambda: None,
) -> None:
    """Trains one group after another; completes the teachers' stage.

    A completed group is not trained again, and an interrupted one resumes.

    Args:
      experiment: a run with `Run.groups`.
      stage: the stage of all teachers, while its lock is held. Its variables are those
        of the groups, by name.
      stop_requests: see `train.StopRequests`.
      after_first: see `loop.fit`; called while the first group that needs it trains.

    Raises:
      Interrupted, loop.NonFinite: as `loop.fit`.
    """
    run = experiment.run
    record_run(experiment)
    stage.begin()
    for name, group in run.groups.items():
        own = Stage(group.teachers_dir, group.teacher_dependencies)
        with own.making() as needed:
            if not needed:
                print(f"teachers/{name}: complete")
                continue
            train.fit_teachers(
                experiment._replace(run=group),
                own,
                stop_requests,
                after_first=after_first,
                label=f"teachers/{name}",
                whole=experiment,
            )
            after_first = _nothing
    variables = {
        name: restore.load_teachers(group, experiment.mesh)[1]
        for name, group in run.groups.items()
    }
    records = {name: restore.teachers_record(g) for name, g in run.groups.items()}
    num_params = sum(
        records[name]["num_params"] * group.num_kept
        for name, group in run.groups.items()
    )
    storage.write_text(stage.log, "".join(map(_line, _mean_log(run))))
    checkpoint.save_variables(stage.variables, variables)
    stage.complete(
        {
            "train_seconds": sum(r["train_seconds"] for r in records.values()),
            "num_params": round(num_params / run.num_kept),
            "groups": records,
        }
    )


def _mean_log(run: Run) -> list[dict[str, Any]]:
    """Returns by epoch the mean over the networks of the groups that trained in it."""
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for group in run.groups.values():
        networks = group.kind.num_trained(group.num_members, group.config.teachers)
        log = group.teachers_dir / "metrics.jsonl"
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["epoch"], []).append((networks, row))
    means = []
    for epoch, of_groups in sorted(rows.items()):
        total = sum(networks for networks, _ in of_groups)
        shared = set.intersection(*(set(row) for _, row in of_groups))
        mean = {
            key: sum(networks * row[key] for networks, row in of_groups) / total
            for key in sorted(shared - {"epoch", "step"})
        }
        step = max(row["step"] for _, row in of_groups)
        means.append({"epoch": epoch, "step": step, **mean})
    return means


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _nothing() -> None:
    pass
