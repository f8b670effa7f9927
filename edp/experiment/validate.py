"""Config validators: every setting by itself, and settings in combination."""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from edp import models
from edp.data.corruption_files import is_folder
from edp.data.corruptions import CORRUPTIONS
from edp.errors import InputError
from edp.experiment import data_rules, settings, teacher_kinds
from edp.experiment.member_temperatures import MEMBER_TEMPERATURES
from edp.experiment.rules import (
    ANYTHING,
    BOOL,
    COUNT,
    COVERAGES,
    FRACTION,
    INDEX,
    MILESTONES,
    MOMENTUM,
    NOT_NEGATIVE,
    POSITIVE,
    PREDICTOR_NAME,
    SEED,
    SHARES,
    STEP_SIZES,
    TEXT,
    TWO_POSITIVE,
    Rule,
    are_names,
    one_of,
    optional,
    override,
)
from edp.experiment.teacher_kinds import KINDS
from edp.metrics import conformal
from edp.models import MODELS, Classifier
from edp.perturbations import PERTURBATIONS, QUANTITIES
from edp.runtime.optimizers import OPTIMIZERS
from edp.students import STUDENTS, create_student
from edp.students.single import TARGET_POOLS

# The section at fault, and the fault in words.
_Fault = tuple[str, str]


_PERTURBATION = Rule(
    f"one of {', '.join(PERTURBATIONS)}, or several joined by +",
    lambda v: isinstance(v, str) and set(v.split("+")) <= PERTURBATIONS.keys(),
)


def _are_corruptions(value: Any) -> bool:
    if not are_names(value):
        return False
    computed = [name for name in value if not is_folder(name)]
    return computed == ["all"] or set(computed) <= CORRUPTIONS.keys()


_CORRUPTIONS = Rule(
    f'("all",), or distinct names of {", ".join(CORRUPTIONS)}, or (); and folders '
    "such as ./CIFAR-10-C",
    _are_corruptions,
)
_OPTIMIZER = {
    "batch_size": COUNT,
    "num_epochs": COUNT,
    "select": one_of("last", "best"),
    "schedule": one_of("step_linear", "cosine", "constant"),
    "learning_rate": POSITIVE,
    "warmup_epochs": NOT_NEGATIVE,
    "milestones": MILESTONES,
    "momentum": MOMENTUM,
    "nesterov": BOOL,
    "weight_decay": NOT_NEGATIVE,
    "accumulate_steps": COUNT,
    # Runs begun before these settings existed lack them.
    "optimizer": override(one_of(*OPTIMIZERS)),
    "ema_decay": override(MOMENTUM),
    "label_smoothing": override(FRACTION),
    "members_at_once": optional(COUNT),
}
_DISTILL = {
    **_OPTIMIZER,
    "student": one_of(*STUDENTS),
    "perturbation": _PERTURBATION,
    "step_size": NOT_NEGATIVE,
    "quantity": one_of(*QUANTITIES),
    "num_steps": COUNT,
    "step_length": optional(POSITIVE),
    "random_members": optional(COUNT),
    "mixup_alpha": POSITIVE,
    "temperature": POSITIVE,
    "alpha": FRACTION,
    "clean_pass": BOOL,
    "target_pool": override(one_of(*TARGET_POOLS)),
    "member_temperatures": override(one_of(*MEMBER_TEMPERATURES)),
    "factor_init": one_of("normal", "sign", "ones"),
    "rank_one_lr_factor": NOT_NEGATIVE,
    "hydra_single_share": FRACTION,
    "hydra_mean_share": override(FRACTION),
    "hydra_diversity": override(NOT_NEGATIVE),
    "mimo_repetitions": COUNT,
    "packed_alpha": POSITIVE,
    "dirichlet_loss": one_of("mle", "proxy"),
    "dirichlet_start_temperature": POSITIVE,
    "dirichlet_annealing": SHARES,
    "functional_sigma": POSITIVE,
    "functional_samples": COUNT,
    "functional_teachers": optional(COUNT),
    "functional_inference_samples": COUNT,
    "bridge_steps": COUNT,
    "bridge_one_step_share": MOMENTUM,
    "bridge_betas": TWO_POSITIVE,
    "bridge_width": COUNT,
    "flow_width": COUNT,
    "flow_samples": optional(COUNT),
}
_RULES = {
    "seed": SEED,
    "dtype": one_of("float32", "bfloat16"),
    "teachers_workdir": optional(TEXT),
    "checkpoint_minutes": NOT_NEGATIVE,
    "checkpoint_steps": optional(COUNT),
    "nonfinite": one_of("stop", "skip"),
    "steps_per_dispatch": COUNT,
    # Optional: the configuration of a run may lack them.
    "tensorboard": override(BOOL),
    "wandb_project": override(Rule("a name", lambda v: isinstance(v, str) and v != "")),
    "mesh": {"member": COUNT, "data": COUNT, "shard_optimizer": BOOL},
    "teachers": {
        **_OPTIMIZER,
        "num_members": COUNT,
        "bootstrap": BOOL,
        "kind": one_of(*KINDS),
        "networks": COUNT,
        "prior_scale": NOT_NEGATIVE,
        "epochs_between": COUNT,
        # Runs begun before these settings existed lack them.
        "mixup_alpha": override(NOT_NEGATIVE),
        "swag_start": override(COUNT),
        "swag_rank": override(COUNT),
        "swag_scale": override(NOT_NEGATIVE),
        "swag_learning_rate": override(POSITIVE),
        "packed_width": override(POSITIVE),
        "member_strategy": optional(one_of("vmap", "unroll")),
    },
    "evaluation": {
        "batch_size": COUNT,
        "max_subsets": COUNT,
        "diversity_size": COUNT,
        "gallery_size": COUNT,
        "step_sizes": STEP_SIZES,
        "ood_size": COUNT,
        "corruptions": _CORRUPTIONS,
        "corruption_size": COUNT,
        # The configuration of an earlier run lacks these.
        "soft_labels": override(TEXT),
        "set_score": override(one_of(*conformal.SCORES)),
        "set_coverages": override(COVERAGES),
        "attribution_size": override(INDEX),
    },
}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks that every setting is present, known and in its range.

    `preconditions` checks the settings that depend on the data or the devices.

    Raises:
      InputError: names every setting at fault, its value and what is accepted.
    """
    values = config.to_dict()
    data, students = (
        section if isinstance(section := values.get(name), Mapping) else {}
        for name in ("data", "students")
    )
    groups = _groups(values)
    faults = list(_faults_of_names(students, groups or {}))
    distill = settings.keywords(settings.ALL_METHODS) | _DISTILL
    overrides = {key: override(rule) for key, rule in distill.items()}
    model = {
        **_of_models(),
        "name": one_of(*MODELS),
        "remat": override(BOOL),
        "batchnorm_groups": optional(COUNT),
        "dropout_rate": override(MOMENTUM),
    }
    teachers = dict(_RULES["teachers"])
    if groups is not None:
        own = {key: override(rule) for key, rule in teachers.items()}
        teachers["groups"] = {name: {**own, "model": model} for name in groups}
    rules = {
        **_RULES,
        "data": data_rules.rules(data),
        "model": model,
        "teachers": teachers,
        "evaluation": {
            **_RULES["evaluation"],
            "ood_sets": data_rules.unseen_sets(data),
        },
        "distill": distill,
        "students": dict.fromkeys(students, overrides),
    }
    faults.extend(_faults(values, rules))
    messages = [message for _, message in faults]
    at_fault = {section for section, _ in faults}
    messages.extend(_faults_between(config, values, at_fault))
    if messages:
        raise InputError("; ".join(messages))


def _groups(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns `teachers.groups`; None in the runs begun before it existed."""
    teachers = values.get("teachers")
    groups = teachers.get("groups") if isinstance(teachers, Mapping) else None
    return groups if isinstance(groups, Mapping) else None


def _faults_of_names(
    students: Iterable[str], groups: Iterable[str]
) -> Iterator[_Fault]:
    if not students:
        yield "students", "students is empty; accepted: a section for at least one"
    for section, names in (("students", students), ("teachers.groups", groups)):
        for name in names:
            if not PREDICTOR_NAME(name):
                fault = f"{section}.{name}: a name is of {PREDICTOR_NAME.words}"
                yield section.partition(".")[0], fault


def _faults_between(
    config: ml_collections.ConfigDict, values: Mapping[str, Any], at_fault: set[str]
) -> Iterator[str]:
    """Yields the faults between settings, of sections without a fault of their own."""
    if "data" not in at_fault:
        yield from data_rules.faults(values["data"])
    if not at_fault & {"data", "evaluation"}:
        yield from _calibration_faults(values)
    build_model = functools.partial(
        models.create_model, config.get("model"), num_classes=2, mean=(0,), std=(1,)
    )
    if "model" not in at_fault:
        try:
            build_model()
        except InputError as error:
            yield f"model.{error}"
            at_fault = {*at_fault, "model"}
    if at_fault & {"model", "teachers"} or config.get("teachers_workdir") is not None:
        return  # the teachers of another run may have other sizes
    yield from _teacher_faults(config, values)
    if at_fault & {"distill", "students"}:
        return
    for name, section in settings.resolve_students(config).items():
        try:
            create_student(
                section,
                build_model,
                num_members=config.teachers.num_members,
                training_steps=1,
            )
        except InputError as error:
            yield f"students.{name}.{error}"


def _teacher_faults(
    config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> Iterator[str]:
    """Yields the faults of the teachers' kind, or of the kind of each group."""
    groups = values["teachers"].get("groups") or {}
    if not groups:
        yield from teacher_kinds.of(values["teachers"]).faults(values)
        return
    sizes = {}
    for name in settings.group_names(config):
        own = settings.group_config(config, name)
        prefix, sizes[name] = f"teachers.groups.{name}", own.teachers.num_members
        try:
            models.create_model(own.model, num_classes=2, mean=(0,), std=(1,))
        except InputError as error:
            yield f"{prefix}.model.{error}"
        of_group = own.to_dict()
        for fault in teacher_kinds.of(of_group["teachers"]).faults(of_group):
            yield f"{prefix}: {fault}"
    num_members, total = config.teachers.num_members, sum(sizes.values())
    if num_members != total:
        terms = " + ".join(f"{size} ({name})" for name, size in sizes.items())
        yield (
            f"teachers.num_members={num_members} must be {total}, the members of "
            f"teachers.groups: {terms}"
        )


def _calibration_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault where the calibration images are too few for a coverage."""
    size = values["data"].get("calibration_size")
    coverages = values["evaluation"].get("set_coverages")
    if size is None or coverages is None:
        return
    least = conformal.smallest_calibration_size(max(coverages))
    if size < least:
        yield (
            f"data.calibration_size={size} must be at least {least} for a coverage of "
            f"{max(coverages)} in evaluation.set_coverages, or None"
        )


def _faults(
    values: Mapping[str, Any], rules: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[_Fault]:
    """Yields the faults of each setting by itself; `path` leads to the section."""
    prefix = "".join(f"{name}." for name in path)
    for key in values:
        if key not in rules:
            nearest = difflib.get_close_matches(key, rules, n=1, cutoff=0)[0]
            message = f"{prefix}{key} is no setting; did you mean {prefix}{nearest}?"
            yield (*path, key)[0], message
    for key, rule in rules.items():
        value, section = values.get(key), (*path, key)[0]
        if isinstance(rule, Mapping):
            if isinstance(value, Mapping):
                yield from _faults(value, rule, (*path, key))
            else:
                yield section, f"{prefix}{key}={value!r} must be a section of settings"
        elif key not in values:
            if rule.required:
                what = f"it must be {rule.words or 'given'}"
                yield section, f"{prefix}{key} is missing; {what}"
        elif not rule(value):
            yield section, f"{prefix}{key}={value!r} must be {rule.words}"


def _of_models() -> dict[str, Rule]:
    """Returns the settings of all models, which check them."""
    names = {field.name for m in MODELS.values() for field in dataclasses.fields(m)}
    common = {field.name for field in dataclasses.fields(Classifier)}
    return dict.fromkeys(names - common, override(ANYTHING))
