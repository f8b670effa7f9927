"""What a configuration says: its values checked, and what each stage depends on."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from edp.errors import InputError
from edp.perturbations import PERTURBATIONS, QUANTITIES
from edp.students import STUDENTS

# Of `data`, what says where the images lie and not which they are.
_WHEREABOUTS = ("data_dir",)
_SECTIONS = ("seed", "dtype", "model")
# Of a student's settings, those that decide how its inputs are perturbed.
PERTURBATION_KEYS = (
    "perturbation",
    "step_size",
    "temperature",
    "quantity",
    "num_steps",
    "step_length",
)


class _Rule:
    """What a value must be, in words and as a test."""

    def __init__(self, words: str, test: Callable[[Any], bool]):
        self.words, self.test = words, test

    def __call__(self, value: Any) -> bool:
        try:
            return bool(self.test(value))
        except TypeError:
            return False


def _one_of(*names: str) -> _Rule:
    return _Rule(f"one of {', '.join(names)}", lambda v: v in names)


def _optional(rule: _Rule) -> _Rule:
    return _Rule(f"{rule.words}, or None", lambda v: v is None or rule(v))


_COUNT = _Rule("an integer of at least 1", lambda v: isinstance(v, int) and v >= 1)
_INDEX = _Rule("an integer of at least 0", lambda v: isinstance(v, int) and v >= 0)
_POSITIVE = _Rule("a finite number above 0", lambda v: 0 < v < math.inf)
_NOT_NEGATIVE = _Rule("a finite number of at least 0", lambda v: 0 <= v < math.inf)
_FRACTION = _Rule("a number from 0 to 1", lambda v: 0 <= v <= 1)
_MOMENTUM = _Rule("a number from 0 to below 1", lambda v: 0 <= v < 1)
_BOOL = _Rule("True or False", lambda v: isinstance(v, bool))
_MILESTONES = _Rule(
    "two epochs E1 < E2", lambda v: len(v) == 2 and 0 < v[0] < v[1] < math.inf
)

_OPTIMIZER = {
    "batch_size": _COUNT,
    "num_epochs": _COUNT,
    "schedule": _one_of("step_linear", "cosine", "constant"),
    "learning_rate": _POSITIVE,
    "warmup_epochs": _NOT_NEGATIVE,
    "milestones": _MILESTONES,
    "momentum": _MOMENTUM,
    "nesterov": _BOOL,
    "weight_decay": _NOT_NEGATIVE,
}
_DISTILL = {
    **_OPTIMIZER,
    "student": _one_of(*STUDENTS),
    "perturbation": _one_of(*PERTURBATIONS),
    "step_size": _NOT_NEGATIVE,
    "quantity": _one_of(*QUANTITIES),
    "num_steps": _COUNT,
    "step_length": _optional(_POSITIVE),
    "temperature": _POSITIVE,
    "alpha": _FRACTION,
    "clean_pass": _BOOL,
    "factor_init": _one_of("normal", "sign", "ones"),
    "rank_one_lr_factor": _NOT_NEGATIVE,
}
_RULES = {
    "seed": _INDEX,
    "dtype": _one_of("float32", "bfloat16"),
    "checkpoint_minutes": _NOT_NEGATIVE,
    "mesh": {"member": _COUNT, "data": _COUNT},
    "data": {"crop_padding": _INDEX, "flip": _BOOL},
    "teachers": {
        **_OPTIMIZER,
        "num_members": _COUNT,
        "member_strategy": _optional(_one_of("vmap", "unroll")),
    },
    "distill": _DISTILL,
    "evaluation": {
        "batch_size": _COUNT,
        "max_subsets": _COUNT,
        "diversity_size": _COUNT,
        "gallery_size": _COUNT,
    },
}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the values that no constructor checks better.

    Raises:
      InputError: naming every setting at fault, its value and what is accepted.
    """
    faults = list(_faults(config, _RULES, ""))
    if not config.students:
        faults.append("students is empty; accepted: at least one name")
    for name in config.students:
        if not name.replace("_", "").replace("-", "").isalnum():
            faults.append(f"students.{name}: use letters, digits, - and _ in names")
        if name == "teachers":
            faults.append("students.teachers: that name is the ensemble's own")
        resolved = student_settings(config, name)
        faults.extend(_faults(resolved, _DISTILL, f"students.{name}."))
    channels = config.data.image_shape[-1] if config.data.image_shape else 0
    for key in ("mean", "std"):
        values = config.data[key]
        if len(values) not in (1, channels) or (key == "std" and min(values) <= 0):
            faults.append(
                f"data.{key}={tuple(values)!r} must be 1 or {channels} numbers"
                + (" above 0" if key == "std" else "")
            )
    if faults:
        # An inherited fault is told once, where it was set.
        unique = list(dict.fromkeys(faults))
        raise InputError("; ".join(unique))


def _faults(values: Mapping[str, Any], rules: Mapping[str, Any], prefix: str):
    for key, rule in rules.items():
        if isinstance(rule, Mapping):
            yield from _faults(values[key], rule, f"{prefix}{key}.")
        elif not rule(values[key]):
            yield f"{prefix}{key}={values[key]!r} must be {rule.words}"


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


def teacher_dependencies(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Everything that the trained teachers depend on, and nothing else."""
    data = config.data.to_dict()
    return {
        **{key: _plain(config[key]) for key in _SECTIONS},
        "data": {key: data[key] for key in data if key not in _WHEREABOUTS},
        "teachers": _of_schedule(config.teachers.to_dict()),
    }


def student_dependencies(
    config: ml_collections.ConfigDict, name: str, teachers: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a student depends on: `teachers` is what its teachers do."""
    return {
        **{key: _plain(config[key]) for key in _SECTIONS},
        "distill": _of_schedule(student_settings(config, name)),
        "from": dict(teachers),
    }


def _of_schedule(section: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what the chosen schedule does not read."""
    unread = {
        "step_linear": ("warmup_epochs",),
        "cosine": ("milestones",),
        "constant": ("warmup_epochs", "milestones"),
    }[section["schedule"]]
    return {key: value for key, value in section.items() if key not in unread}


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
