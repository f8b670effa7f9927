"""Imports networks trained elsewhere as the completed teachers of a run."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from edp import ensemble
from edp.errors import InputError
from edp.experiment import (
    data_record,
    distilled_from,
    restore,
    teacher_kinds,
    train_teachers,
    weights,
)
from edp.experiment.create import Experiment, record_run
from edp.experiment.run import Run, model_builder
from edp.runtime import multihost, storage
from edp.runtime.stage import Stage, different_settings, read_record

# Random images on which the networks of two runs are compared, and the largest
# accepted difference of their logits, of logits above 1 relative to them.
_IMAGES, _TOLERANCE = 8, 1e-3
# Settings that can change what a network computes from the same weights.
_OF_FUNCTIONS = ("model.", "data.mean", "data.std", "teachers.prior_scale")


class _Import(NamedTuple):
    """Networks to import: the files of the teachers of a run, or of one of its groups.

    Attributes:
      label: the stage's name in messages.
      run: the run, or the group.
      paths: per network, its weights.
      stage: the stage to complete.
    """

    label: str
    run: Run
    paths: list[pathlib.Path]
    stage: Stage

    @property
    def record(self) -> dict[str, Any]:
        sources = list(map(str, self.paths))
        return {"train_seconds": 0.0, "imported_from": sources}


def import_teachers(experiment: Experiment, members: Sequence[str]) -> None:
    """Completes the teachers' stage, or groups of it, with variables from elsewhere.

    Networks of another run must have had the same training and validation images, and
    settings with which they compute the same function. What others were trained on is
    unknown: the run's validation and test images should not be among it.

    Args:
      experiment: a run of the members' architecture; its seed draws the data split.
      members: per network of that architecture, the path of its weights, in one of
        the formats `weights.ACCEPTED`. With `teachers.groups`, GROUP=PATH per network
        of each group that is imported; `train_teachers` trains the others.

    Raises:
      InputError: if the stage has other teachers already, or those of files that have
        changed since, a member does not fit, which names the member and the leaf, or
        its run had other data or settings. Nothing of the stage is written then.
    """
    run = experiment.run
    if run.config.teachers_workdir is not None:
        raise InputError(
            f"teachers_workdir={run.config.teachers_workdir!r} must be None "
            "where teachers are imported"
        )
    new = []
    for one in list(_imports(run, members)):
        if _is_done(one):
            print(f"{one.label}: complete{_check_unchanged(one)}")
        else:
            _check_data(experiment, one)
            variables = _read(one)
            _check_functions(one, variables)
            new.append((one, variables))
    for one, variables in new:
        _write(experiment, one, variables)
    complete = [read_record(group.teachers_dir) for group in run.groups.values()]
    if complete and None not in complete:
        stage = Stage(run.teachers_dir, run.teacher_dependencies)
        with stage.making() as needed:
            if needed:
                stage.begin()
                train_teachers.complete_groups(experiment, stage)


def _imports(run: Run, members: Sequence[str]) -> Iterator[_Import]:
    if not run.groups:
        yield _create_import("teachers", run, members)
        return
    for name, paths in _by_group(run.groups, members).items():
        yield _create_import(f"teachers/{name}", run.groups[name], paths)


def _by_group(
    groups: Mapping[str, Run], members: Sequence[str]
) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = {}
    for member in members:
        name, separator, path = member.partition("=")
        if not separator or name not in groups:
            raise InputError(
                f"--members has {member!r}; accepted with teachers.groups: GROUP=PATH "
                f"per network, with GROUP one of {', '.join(groups)}"
            )
        paths.setdefault(name, []).append(path)
    return paths


def _create_import(label: str, run: Run, members: Sequence[str]) -> _Import:
    """Raises an InputError unless there is a path of its own for each network."""
    paths = [pathlib.Path(path).expanduser().absolute() for path in members]
    if len(paths) != run.num_kept:
        raise InputError(
            f"--members names {len(paths)} networks of {label}; accepted: "
            f"{run.num_kept}, as num_members={run.num_members} and "
            f"kind={run.config.teachers.kind!r} have it"
        )
    repeated = [str(path) for path in paths if paths.count(path) > 1]
    if repeated:
        raise InputError(
            f"--members names {repeated[0]} more than once among the networks of "
            f"{label}; accepted: each once"
        )
    return _Import(label, run, paths, Stage(run.teachers_dir, run.teacher_dependencies))


def _is_done(one: _Import) -> bool:
    """Returns whether the stage has these networks; raises if it has others."""
    stage = one.stage
    if stage.record is None and not stage.checkpoints.exists():
        return False
    if (stage.record or {}).get("imported_from") != one.record["imported_from"]:
        raise InputError(f"{stage.path} has other teachers; give another workdir")
    restore.check_complete(stage.path)
    return True


def _check_unchanged(one: _Import) -> str:
    """Compares the weights at the paths with those that were imported from them.

    Returns:
      A remark for the user: which of the paths is not there any more, so that nothing
      was compared. The stage needs none of them.

    Raises:
      InputError: if the weights are others, or damaged.
    """
    imported = (one.stage.record or {}).get("weights")
    gone = [str(path) for path in one.paths if not _weights_file(path).exists()]
    gone = multihost.from_first(gone)
    if imported is None or gone:
        return f" ({gone[0]} is not there to compare with)" if gone else ""
    if distilled_from.digest(_read(one)) != imported:
        paths = ", ".join(map(str, one.paths))
        raise InputError(
            f"{one.stage.path} has the former weights of {paths}, which have changed "
            "since they were imported; give another workdir to import the present ones"
        )
    return ""


def _weights_file(path: pathlib.Path) -> pathlib.Path:
    """Returns what a path of weights names, of WORKDIR/teachers#m the directory."""
    return path.with_name(path.name.rpartition("#")[0] or path.name)


def _check_data(experiment: Experiment, one: _Import) -> None:
    """Raises an InputError if a network of another run had other data."""
    digests = experiment.data.digests
    for path in one.paths:
        if "#" not in path.name:
            continue
        in_group = path.parent.name == "groups"  # RUN/teachers/groups/NAME#m
        try:
            data_record.check(
                path.parents[2] if in_group else path.parent,
                digests,
                experiment.run.config.data,
                lambda: {"form": digests["form"]},  # data.stream is to be the same
                own=False,
            )
        except InputError as error:
            raise InputError(
                f"{path} was trained in a run with another split or other data; "
                f"accepted: networks of runs with this seed and `data` section; {error}"
            ) from error


def _read(one: _Import) -> Any:
    """Reads the variables of all networks, stacked."""
    model = one.run.build_teacher()
    like = jax.eval_shape(lambda: model.init(one.run.key, one.run.example, train=False))
    prefix = one.label.removeprefix("teachers").lstrip("/")
    names = [
        f"{prefix} member {m} ({path})".lstrip() for m, path in enumerate(one.paths)
    ]
    read = [weights.read(n, p, like) for n, p in zip(names, one.paths, strict=True)]
    for name, network in zip(names, read, strict=True):
        print(f"{name}: {network.description}")
    return ensemble.stack([network.variables for network in read])


def _check_functions(one: _Import, variables: Any) -> None:
    """Raises an InputError if a network of another run would compute something else.

    Settings such as `data.mean` change what weights compute, but not their shapes.

    Args:
      one: the networks to import.
      variables: their variables, stacked.
    """
    own = json.loads(json.dumps(one.run.teacher_dependencies))
    for m, path in enumerate(one.paths):
        stage, separator, _ = path.name.rpartition("#")
        file = path.parent / stage / "settings.json"
        if not separator or not file.exists():
            continue
        stored = storage.read_mapping(file)
        if not stored.keys() >= {"data", "model", "teachers"}:
            continue
        networks = _network(stored), _network(own)
        if networks[0] == networks[1]:
            continue
        images = jax.random.uniform(jax.random.key(0), (_IMAGES, *one.run.image_shape))
        member = ensemble.select(variables, m)
        there, here = (net.apply(member, images, train=False) for net in networks)
        difference = np.abs(there - here) / np.maximum(1, np.abs(there))
        if difference.max() <= _TOLERANCE:
            continue
        differ = [
            f"{key} was {a!r} and is now {b!r}"
            for key, (a, b) in different_settings(stored, own).items()
            if key.startswith(_OF_FUNCTIONS)
        ]
        raise InputError(
            f"{path} would compute other logits with the settings of this run "
            f"({'; '.join(differ)}); accepted: networks of runs with the same ones"
        )


def _network(depends_on: Mapping[str, Any]) -> Any:
    """Creates the network of teachers that depend on these settings, in float32."""
    config = ml_collections.ConfigDict({**depends_on, "dtype": "float32"})
    teachers = depends_on["teachers"]
    build = model_builder(config, config.model)
    return teacher_kinds.of(teachers).network(build, teachers)


def _write(experiment: Experiment, one: _Import, variables: Any) -> None:
    stage = one.stage
    with stage.making() as needed:
        if not needed:
            raise InputError(f"{stage.path} has other teachers; give another workdir")
        record_run(experiment)
        stage.begin()
        placed = restore.put_teachers(one.run, experiment.mesh, variables)
        restore.complete(stage, placed, one.record, one.run.num_kept)
