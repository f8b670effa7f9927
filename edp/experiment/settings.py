"""What a configuration says: its values checked, and what each stage depends on."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from edp.errors import InputError
from edp.experiment import teacher_kinds
from edp.experiment.rules import ANYTHING, DATA_LOCATION, Rule, override
from edp.perturbations import PERTURBATIONS, Method, methods
from edp.students import STUDENTS

_SECTIONS = ("seed", "dtype", "model")
# What changes the memory and time of a computation and not its result.
_MANNER = ("member_strategy", "members_at_once", "remat")
# What a stage depends on only where it differs from this: so a workdir begun before
# there was such a setting goes on.
_UNLESS = {"bootstrap": False, "kind": "deep", "dropout_rate": None}
# Keywords of students that are no settings of theirs: M is the teachers', and the
# steps follow from the epochs.
_DERIVED = {"num_members", "training_steps"}


def _functions(perturbations: Iterable[Method]) -> Iterator[Callable]:
    """Functions of inputs and their views of the teachers."""
    return itertools.chain.from_iterable(one.functions for one in perturbations)


# Kinds of student, perturbations and these's views of the teachers: all functions.
ALL_METHODS = [*STUDENTS.values(), *_functions(PERTURBATIONS.values())]


def keywords(functions: Iterable[Callable]) -> dict[str, Rule]:
    """The settings of functions, which check them, and not what others decide on."""
    parameters = [
        p for f in functions for p in inspect.signature(f).parameters.values()
    ]
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - _DERIVED
    return dict.fromkeys(names, override(ANYTHING))


def student_settings(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """The settings of one student: `distill`, with what the student overrides.

    Raises:
      InputError: if there is no such student.
    """
    if name not in config.students:
        raise InputError(
            f"students.{name} does not exist; accepted: {', '.join(config.students)}"
        )
    overrides = config.students[name].to_dict()
    chosen = {key: value for key, value in overrides.items() if value is not None}
    return {**config.distill.to_dict(), **chosen}


def perturbation_settings(student: Mapping[str, Any]) -> dict[str, Any]:
    """Of a student's settings, those that decide how its inputs are perturbed."""
    name = student["perturbation"]
    read = {"perturbation", *keywords(_functions(methods(name)))}
    return {key: student[key] for key in student if key in read.difference(_MANNER)}


def teacher_dependencies(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Everything that the trained teachers depend on, and nothing else."""
    data, teachers = config.data.to_dict(), config.teachers.to_dict()
    return {
        **{key: _plain(config[key]) for key in _SECTIONS},
        "data": {key: data[key] for key in data if key not in DATA_LOCATION},
        "teachers": _changed(
            _of_schedule(teacher_kinds.of(teachers).training(teachers))
        ),
    }


def student_dependencies(
    config: ml_collections.ConfigDict, name: str, teachers: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a student depends on: `teachers` is what its teachers do."""
    chosen = student_settings(config, name)
    own = _functions(methods(chosen["perturbation"]))
    read = keywords([STUDENTS[chosen["student"]], *own])
    any_reads = keywords(ALL_METHODS)
    return {
        **{key: _plain(config[key]) for key in _SECTIONS},
        "distill": _without(_of_schedule(chosen), any_reads.keys() - read.keys()),
        "from": dict(teachers),
    }


def _of_schedule(section: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what the chosen schedule does not read, and what changes nothing."""
    unread = {
        "step_linear": ("warmup_epochs",),
        "cosine": ("milestones",),
        "constant": ("warmup_epochs", "milestones"),
        "cyclic": ("warmup_epochs", "milestones"),
    }[section["schedule"]]
    return _without(section, (*unread, *_MANNER))


def _plain(value: Any) -> Any:
    if isinstance(value, ml_collections.ConfigDict):
        return _changed(_without(value.to_dict(), _MANNER))
    return value


def _changed(section: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is as it was before it could be set."""
    same = [key for key, value in _UNLESS.items() if section.get(key) == value]
    return _without(section, same)


def _without(section: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}
