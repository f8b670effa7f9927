"""Trains the teachers of a run: all at once, or those of each group in turn."""

import json
from collections.abc import Callable
from typing import Any

import jax

from edp import ensemble
from edp.experiment import (
    batch_statistics,
    distilled_from,
    restore,
    step_inputs,
    train,
)
from edp.experiment.create import Experiment, record_run
from edp.experiment.run import Run
from edp.runtime import checkpoint, optimizers, rng, storage, xla
from edp.runtime.stage import Stage


def fit_teachers(
    experiment: Experiment,
    stage: Stage,
    stop_requests: train.StopRequests,
    *,
    after_first: Callable[[], None] = lambda: None,
    label: str = "teachers",
    whole: Experiment | None = None,
) -> None:
    """Trains all teachers at once in one jitted step; completes the stage.

    Args:
      experiment: the run.
      stage: the teachers' stage, while its lock is held.
      stop_requests: see `train.StopRequests`.
      after_first: see `loop.fit`.
      label: the stage's name in the progress and for trackers.
      whole: the run to record, where `experiment` is one of its groups.

    Raises:
      Interrupted, loop.NonFinite: as `loop.fit`.
    """
    config = experiment.run.config.teachers
    key = rng.stream(experiment.run.key, "teachers")
    mesh, kind = experiment.mesh, experiment.run.kind
    num_trained = kind.num_trained(experiment.run.num_members, config)
    per_epoch = experiment.run.steps_per_epoch(config.batch_size)
    model = experiment.run.build_teacher()
    tx = optimizers.create_optimizer(kind.training(config), per_epoch)
    init_keys = jax.random.split(rng.stream(key, "init"), num_trained)
    state = ensemble.create_state(
        model,
        tx,
        init_keys,
        experiment.run.example,
        compiler_options=xla.compiler_options(),
    )
    state = ensemble.place(state, mesh)
    augment = step_inputs.create_augment(experiment.run.config.data)
    record_run(whole or experiment)

    def step(state, examples, inputs):
        batch, step_key = step_inputs.draw_batch(
            key, state.step, examples, inputs, augment=augment, mesh=mesh
        )
        return ensemble.train_step(
            state,
            batch,
            step_key,
            model=model,
            tx=tx,
            strategy=config.member_strategy,
            members_at_once=config.members_at_once,
            mesh=mesh,
            label_smoothing=config.get("label_smoothing") or 0.0,
            mixup_alpha=config.get("mixup_alpha") or 0.0,
        )

    images_per_step = config.batch_size * num_trained
    variables, record = train.run_loop(
        experiment,
        stage,
        label,
        step,
        state,
        experiment.data.train,
        step_inputs.create_feed(
            experiment,
            key,
            config.batch_size,
            num_trained,
            bootstrap=config.bootstrap,
        ),
        experiment.run.training_length(config, images_per_step),
        restore.create_teachers_selection(experiment, model),
        stop_requests,
        config,
        after_first=after_first,
    )

    def refresh(variables):
        own_key = rng.stream(key, "batch statistics")
        return batch_statistics.recompute(experiment, model, variables, own_key)

    num_members = experiment.run.num_members
    variables = kind.finish(variables, config, num_members, key, refresh)
    restore.complete(stage, variables, record, experiment.run.num_kept)


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
            fit_teachers(
                experiment._replace(run=group),
                own,
                stop_requests,
                after_first=after_first,
                label=f"teachers/{name}",
                whole=experiment,
            )
            after_first = _nothing
    complete_groups(experiment, stage)


def complete_groups(experiment: Experiment, stage: Stage) -> None:
    """Completes the stage of all teachers from its completed groups.

    Args:
      experiment: a run with `Run.groups`.
      stage: see `fit_groups`.
    """
    run = experiment.run
    variables = {
        name: restore.load_teachers(group, experiment.mesh)[1]
        for name, group in run.groups.items()
    }
    records = {name: restore.teachers_record(g) for name, g in run.groups.items()}
    num_params = sum(
        records[name]["num_params"] * group.num_kept
        for name, group in run.groups.items()
    )
    skipped = sum(r.get("skipped_steps", 0) for r in records.values())
    if log := _mean_log(run):
        storage.write_text(stage.log, "".join(map(_line, log)))
    checkpoint.save_variables(stage.variables, variables)
    stage.complete(
        {
            "train_seconds": sum(r["train_seconds"] for r in records.values()),
            "num_params": round(num_params / run.num_kept),
            "weights": distilled_from.digest(variables),
            **({"skipped_steps": skipped} if skipped else {}),
            "groups": records,
        }
    )


def _mean_log(run: Run) -> list[dict[str, Any]]:
    """Returns by epoch the mean over the networks of the groups that trained in it.

    Imported groups have no log.
    """
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for group in run.groups.values():
        networks = group.kind.num_trained(group.num_members, group.config.teachers)
        log = group.teachers_dir / "metrics.jsonl"
        if not log.exists():
            continue
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
