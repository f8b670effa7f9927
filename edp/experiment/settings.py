"""Settings of each student, and the settings that each stage depends on."""

import inspect
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from edp.errors import InputError
from edp.experiment import teacher_kinds
from edp.experiment.rules import ANYTHING, DATA_LOCATION, Rule, override
from edp.perturbations import PERTURBATIONS, Method, methods
from edp.students import STUDENTS

_SECTIONS = ("seed", "dtype", "model")
# Execution options: they change the memory and the time of a computation only.
_EXECUTION_OPTIONS = ("member_strategy", "members_at_once", "remat")
# Settings that did not exist once, and the behaviour then: a stage depends on them
# only where they differ, so that a workdir begun before can be continued.
_DEFAULT_BEFORE = {
    "bootstrap": False,
    "kind": "deep",
    "networks": 1,
    "prior_scale": 1.0,
    "epochs_between": 1,
    "dropout_rate": None,
    "stem_strides": None,
    "heads": None,
    "patch_size": None,
    "optimizer": "sgd",
    "ema_decay": None,
    "label_smoothing": 0.0,
    "target_pool": "arithmetic",
    "member_temperatures": "none",
    "mixup_alpha": 0.0,
    "groups": {},
    "swag_start": None,
    "swag_rank": 20,
    "swag_scale": 1.0,
    "swag_learning_rate": 0.05,
    "packed_width": 2.0,
    "calibration_size": None,
    "hydra_mean_share": 0.0,
    "hydra_diversity": 0.0,
}
# Keywords of student kinds that are not settings of theirs: M, the seed and the source
# are those of the run and its teachers; the steps follow from the epochs.
_DERIVED = {"num_members", "training_steps", "seed", "source"}


def is_execution_option(key: str) -> bool:
    """Returns whether a setting, by its dotted name, changes memory and time only."""
    return key.rpartition(".")[2] in _EXECUTION_OPTIONS


def _functions(perturbations: Iterable[Method]) -> Iterator[Callable]:
    """Yields the functions of perturbations, whose keywords are settings."""
    return itertools.chain.from_iterable(one.functions for one in perturbations)


# All functions whose keywords are settings: student kinds and perturbations.
ALL_METHODS = [*STUDENTS.values(), *_functions(PERTURBATIONS.values())]


def keywords(functions: Iterable[Callable]) -> dict[str, Rule]:
    """Returns the settings that functions read and check, each with its rule."""
    parameters = [
        p for f in functions for p in inspect.signature(f).parameters.values()
    ]
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - _DERIVED
    return dict.fromkeys(names, override(ANYTHING))


def student_settings(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """Returns the settings of one student: `distill` with the student's overrides.

    A None takes the value of `distill`; of a setting that `distill` lacks, such as
    `clip`, it is the value.

    Raises:
      InputError: if there is no such student.
    """
    if name not in config.students:
        raise InputError(
            f"students.{name} does not exist; accepted: {', '.join(config.students)}"
        )
    distill, overrides = config.distill.to_dict(), config.students[name].to_dict()
    chosen = {
        key: value
        for key, value in overrides.items()
        if value is not None or key not in distill
    }
    return {**distill, **chosen}


def resolve_students(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns by name the settings of every student."""
    return {name: student_settings(config, name) for name in config.students}


def unread(config: ml_collections.ConfigDict, name: str) -> dict[str, Any]:
    """Returns the settings of a student's own that have no effect.

    Neither its kind, nor its perturbation, nor its schedule reads them: `temperature`
    of a `dirichlet` student, for example. Those with the value of `distill` are left
    out, and execution options.
    """
    student = student_settings(config, name)
    chosen = methods(student["perturbation"])
    read = keywords([STUDENTS[student["student"]], *_functions(chosen)])
    others = keywords(ALL_METHODS).keys() - read.keys()
    others |= student.keys() - _of_schedule(student).keys()
    return {
        key: student[key]
        for key in config.students[name]
        if key in others.difference(_EXECUTION_OPTIONS)
        and config.students[name][key] is not None
        and student[key] != config.distill.get(key)
    }


def perturbation_settings(student: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a student that determine its perturbation."""
    chosen = methods(student["perturbation"])
    read = {"perturbation", *keywords(_functions(chosen))}
    of_teachers = any(method.uses_teachers for method in chosen)
    if of_teachers and student.get("member_temperatures", "none") != "none":
        read.add("member_temperatures")
    return {
        key: student[key]
        for key in student
        if key in read.difference(_EXECUTION_OPTIONS)
    }


def group_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the names of `teachers.groups`, in the order of their members."""
    return sorted(config.teachers.get("groups") or ())


def group_config(
    config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
    """Returns the configuration whose teachers are the members of a group.

    It has the group's `model`, the `teachers` section with the group's overrides, and
    a seed of its own.
    """
    values = config.to_dict()
    own = values["teachers"].pop("groups")[name]
    overrides = {key: v for key, v in own.items() if v is not None and key != "model"}
    return ml_collections.ConfigDict(
        {
            **values,
            "seed": zlib.crc32(f"{config.seed} {name}".encode()),
            "model": own["model"],
            "teachers": {**values["teachers"], **overrides},
        }
    )


def teacher_dependencies(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns every setting that the trained teachers depend on.

    With groups, `teachers.groups` has by name the seed, the model and the teachers'
    settings of each, and there is no other model.
    """
    if names := group_names(config):
        groups = {n: teacher_dependencies(group_config(config, n)) for n in names}
        shared = ("dtype", "data")
        of_any = {key: groups[names[0]][key] for key in shared}
        own = {
            name: {key: value for key, value in group.items() if key not in shared}
            for name, group in groups.items()
        }
        size = config.teachers.num_members
        teachers = {"num_members": size, "groups": own}
        return {"seed": config.seed, **of_any, "teachers": teachers}
    data, teachers = config.data.to_dict(), config.teachers.to_dict()
    return {
        **{key: plain(config[key]) for key in _SECTIONS},
        # The digest of soft labels is in data.json.
        "data": _changed(_without(data, (*DATA_LOCATION, "soft_labels"))),
        "teachers": _changed(
            _of_schedule(teacher_kinds.of(teachers).training(teachers))
        ),
    }


def student_dependencies(
    config: ml_collections.ConfigDict,
    student: Mapping[str, Any],
    teachers: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns every setting that a trained student depends on.

    Args:
      config: the configuration of its run.
      student: from `student_settings`.
      teachers: every setting that its teachers depend on.
    """
    chosen = methods(student["perturbation"])
    read = keywords([STUDENTS[student["student"]], *_functions(chosen)])
    any_reads = keywords(ALL_METHODS)
    return {
        **{key: plain(config[key]) for key in _SECTIONS},
        "distill": _changed(
            _without(_of_schedule(student), any_reads.keys() - read.keys())
        ),
        "from": dict(teachers),
        # Students trained with the first image's label alone are not continued.
        **({"mixed_labels": True} if _mixes_labels(student, chosen) else {}),
    }


def _mixes_labels(student: Mapping[str, Any], chosen: Iterable[Method]) -> bool:
    """Returns whether the label term of the student takes mixed labels."""
    takes_labels = not student["clean_pass"] and student["alpha"] < 1
    return takes_labels and any(method.mix_labels for method in chosen)


def _of_schedule(section: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the settings that the schedule does not read, and execution options."""
    unread = {
        "step_linear": ("warmup_epochs",),
        "cosine": ("milestones",),
        "constant": ("warmup_epochs", "milestones"),
        "cosine_then_constant": ("milestones",),
        "cyclic": ("warmup_epochs", "milestones"),
    }[section["schedule"]]
    return _without(section, (*unread, *_EXECUTION_OPTIONS))


def plain(value: Any) -> Any:
    """Returns a section as a dict, without execution options and added settings."""
    if isinstance(value, ml_collections.ConfigDict):
        return _changed(_without(value.to_dict(), _EXECUTION_OPTIONS))
    return value


def _changed(section: dict[str, Any]) -> dict[str, Any]:
    """Removes the settings with the behaviour of before they existed."""
    same = [key for key, value in _DEFAULT_BEFORE.items() if section.get(key) == value]
    return _without(section, same)


def _without(section: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}
