"""Imports networks trained elsewhere as the completed teachers of a run."""

import pathlib
from collections.abc import Sequence

import jax

from edp import ensemble
from edp.errors import InputError
from edp.experiment import restore, weights
from edp.experiment.create import Experiment, record_run
from edp.runtime.stage import Stage


def import_teachers(experiment: Experiment, members: Sequence[str]) -> None:
    """Completes the teachers' stage with variables from elsewhere.

    The data that they were trained on are unknown: the run's validation and test
    images should not be among them.

    Args:
      experiment: a run of the members' architecture; its seed draws the data split.
      members: per network of that architecture, the path of its weights, in one of
        the formats `weights.ACCEPTED`.

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
    if run.groups:
        raise InputError(
            f"teachers.groups has {', '.join(run.groups)}; accepted: no groups where "
            "teachers are imported, which are of one architecture"
        )
    paths = [pathlib.Path(path).expanduser().absolute() for path in members]
    wanted = run.num_kept
    if len(paths) != wanted:
        raise InputError(
            f"--members names {len(paths)} networks; accepted: {wanted}, as "
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
    model = run.build_teacher()
    like = jax.eval_shape(lambda: model.init(run.key, run.example, train=False))
    names = [f"member {m} ({path})" for m, path in enumerate(paths)]
    read = [weights.read(n, p, like) for n, p in zip(names, paths, strict=True)]
    for name, one in zip(names, read, strict=True):
        print(f"{name}: {one.description}")
    variables = ensemble.stack([one.variables for one in read])
    with stage.making() as needed:
        if not needed:
            raise InputError(f"{stage.path} has other teachers; give another workdir")
        record_run(experiment)
        stage.begin()
        restore.complete(
            stage, restore.put_teachers(run, experiment.mesh, variables), record, wanted
        )
