"""Teachers that were trained elsewhere, as a completed stage of a run."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from edp import ensemble
from edp.errors import InputError
from edp.experiment import restore
from edp.experiment.create import Experiment
from edp.experiment.create import record_run as record_run
from edp.runtime import checkpoint
from edp.runtime.stage import Stage

# Of the leaves of a member that are not as they should be, how many are told.
_MAX_FAULTS = 3


def import_teachers(experiment: Experiment, members: Sequence[str]) -> None:
    """Completes the teachers' stage with variables from elsewhere.

    What was held out when they were trained is not known: the run's validation and
    test images should not have been among their training images.

    Args:
      experiment: of the members' architecture; its seed draws the split of the data.
      members: per network, the directory of an Orbax checkpoint of the variables of
        one network of that architecture.

    Raises:
      InputError: if the stage has teachers already, or for members at fault; names
        the member and its leaf. Nothing is written of the stage then.
    """
    if experiment.config.teachers_workdir is not None:
        raise InputError(
            f"teachers_workdir={experiment.config.teachers_workdir!r} must be None "
            "where teachers are imported"
        )
    paths = [pathlib.Path(path).expanduser().absolute() for path in members]
    wanted = experiment.kind.num_kept(experiment.num_members)
    if len(paths) != wanted:
        raise InputError(
            f"--members names {len(paths)} directories; accepted: {wanted}, as "
            f"teachers.num_members={experiment.num_members} and "
            f"teachers.kind={experiment.config.teachers.kind!r} have it"
        )
    stage = Stage(experiment.teachers_dir, experiment.teacher_dependencies)
    record = {"train_seconds": 0.0, "imported_from": list(map(str, paths))}
    if stage.record is not None or stage.checkpoints.exists():
        done = stage.record or {}
        if done.get("imported_from") == record["imported_from"]:
            restore.check_complete(stage.path)
            print("teachers: complete")
            return
        raise InputError(f"{stage.path} has other teachers; give another workdir")
    model = experiment.build_model()
    like = jax.eval_shape(
        lambda: model.init(experiment.key, experiment.example, train=False)
    )
    for m, path in enumerate(paths):
        check_member(f"member {m} ({path})", path, like)
    variables = ensemble.stack([checkpoint.load_variables(p, like) for p in paths])
    with stage.making() as needed:
        if not needed:
            raise InputError(f"{stage.path} has other teachers; give another workdir")
        record_run(experiment)
        stage.begin()
        restore.complete(
            stage, restore.put_teachers(experiment, variables), record, wanted
        )


def check_member(name: str, path: pathlib.Path, like: Any) -> None:
    """Compares what a checkpoint holds with what it should, reading no array.

    Args:
      name: of the member, in errors.
      path: its directory.
      like: a tree of shapes.

    Raises:
      InputError: where `path` is no checkpoint, or a leaf is missing, of another
        shape or not known.
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
