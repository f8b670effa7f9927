"""Imports networks trained elsewhere as the completed teachers of a run."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from edp import ensemble
from edp.errors import InputError
from edp.experiment import restore
from edp.experiment.create import Experiment, record_run
from edp.runtime import checkpoint
from edp.runtime.stage import Stage

# How many wrong leaves of a member an error names.
_MAX_FAULTS = 3


def import_teachers(experiment: Experiment, members: Sequence[str]) -> None:
    """Completes the teachers' stage with variables from elsewhere.

    The data that they were trained on are unknown: the run's validation and test
    images should not be among them.

    Args:
      experiment: a run of the members' architecture; its seed draws the data split.
      members: per network, the directory of an Orbax checkpoint of its variables.

    Raises:
      InputError: if the stage has teachers already, or a member does not fit; names
        the member and the leaf. Nothing of the stage is written then.
    """
    run = experiment.run
    if run.config.teachers_workdir is not None:
        raise InputError(
            f"teachers_workdir={run.config.teachers_workdir!r} must be None "
            "where teachers are imported"
        )
    paths = [pathlib.Path(path).expanduser().absolute() for path in members]
    wanted = run.kind.num_kept(run.num_members)
    if len(paths) != wanted:
        raise InputError(
            f"--members names {len(paths)} directories; accepted: {wanted}, as "
            f"teachers.num_members={run.num_members} and "
            f"teachers.kind={run.config.teachers.kind!r} have it"
        )
    stage = Stage(run.teachers_dir, run.teacher_dependencies)
    record = {"train_seconds": 0.0, "imported_from": list(map(str, paths))}
    if stage.record is not None or stage.checkpoints.exists():
        done = stage.record or {}
        if done.get("imported_from") == record["imported_from"]:
            restore.check_complete(stage.path)
            print("teachers: complete")
            return
        raise InputError(f"{stage.path} has other teachers; give another workdir")
    model = run.build_model()
    like = jax.eval_shape(lambda: model.init(run.key, run.example, train=False))
    for m, path in enumerate(paths):
        check_member(f"member {m} ({path})", path, like)
    variables = ensemble.stack([checkpoint.load_variables(p, like) for p in paths])
    with stage.making() as needed:
        if not needed:
            raise InputError(f"{stage.path} has other teachers; give another workdir")
        record_run(experiment)
        stage.begin()
        restore.complete(
            stage, restore.put_teachers(run, experiment.mesh, variables), record, wanted
        )


def check_member(name: str, path: pathlib.Path, like: Any) -> None:
    """Checks the shapes in a checkpoint, without reading an array.

    Args:
      name: the member's name in errors.
      path: its directory.
      like: the expected tree of shapes.

    Raises:
      InputError: if `path` is no checkpoint, or a leaf is missing, unexpected or of
        another shape.
    """
    found = checkpoint.read_shapes(path)
    if found is None:
        raise InputError(
            f"{name} is no Orbax checkpoint of variables; accepted: a directory as "
            "orbax.checkpoint.StandardCheckpointer writes it"
        )
    faults = list(_faults(found, checkpoint.shapes(like)))
    if faults:
        more = len(faults) - _MAX_FAULTS
        told = [*faults[:_MAX_FAULTS], *([f"and {more} more"] if more > 0 else [])]
        raise InputError(f"{name} does not fit the configured model: {'; '.join(told)}")


def _faults(
    found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> Iterator[str]:
    for leaf, shape in wanted.items():
        if leaf not in found:
            yield f"{leaf} is missing"
        elif found[leaf] != shape:
            yield f"{leaf} has shape {found[leaf]} and should have {shape}"
    for leaf in found.keys() - wanted.keys():
        yield f"{leaf} is not a variable of it"
