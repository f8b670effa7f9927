"""Shipped configurations, and their debug variants; `default.py` has every setting."""

import ml_collections
from ml_collections.config_dict import placeholder


def choose(
    config: ml_collections.ConfigDict, variant: str
) -> ml_collections.ConfigDict:
    """Returns the config for the variant "", or its `debug` form for "debug"."""
    if variant not in ("", "debug"):
        raise ValueError(f"variant {variant!r}; accepted: debug, or none")
    return debug(config) if variant else config


# Model -> its smallest form.
_SMALLEST = {
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "resnet50": {"blocks": (1, 1, 1, 1)},
    "vit": {"depth": 1, "width": 8, "heads": 2, "patch_size": 4},
}


def debug(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Reduces a config to a run of seconds on synthetic images.

    Two of the smallest networks, or one of each group, and at most three students, each
    for one epoch of four steps; schedules, optimizers and methods stay the config's.
    """
    data = config.data
    data.source = "synthetic"
    data.stream, data.resize, data.num_workers, data.downsample = False, "none", 0, 1
    data.train_size, data.validation_size, data.test_size = 40, 20, 20
    data.calibration_size = None
    data.num_classes = min(data.num_classes, 10)
    data.image_shape = (16, 16, data.image_shape[-1])
    config.model.update(_SMALLEST[config.model.name])
    groups = list(config.teachers.groups.values())
    config.teachers.num_members = len(groups) or 2
    for group in groups:
        group.num_members = 1
        group.model.update(_SMALLEST[group.model.name])

    def is_perturbed(name):
        own = config.students[name].perturbation
        return (own or config.distill.perturbation) != "none"

    for name in sorted(config.students, key=is_perturbed)[3:]:  # keep a plain one
        del config.students[name]
    students = config.students.values()
    for section in (config.teachers, *groups, config.distill, *students):
        section.num_epochs = 1
        section.batch_size = 10
        section.accumulate_steps = 1
        for key in ("random_members", "functional_teachers"):
            if section.get(key) is not None:
                section[key] = 2
    if config.teachers.kind in ("snapshot", "checkpoint", "swag"):
        config.teachers.num_epochs = 8  # members are of different epochs
    config.evaluation.diversity_size = 20
    config.evaluation.gallery_size = 2
    config.evaluation.ood_size = config.evaluation.corruption_size = 20
    if config.evaluation.ood_sets:
        config.evaluation.ood_sets = ("digits", "noise")
    return config


def student(
    config: ml_collections.ConfigDict, **overrides
) -> ml_collections.ConfigDict:
    """Returns a student: `config.distill` with `overrides`.

    It has every key of `distill`, so that each can be set on the command line; keys
    left at None take the value of `distill`. `clip=None` turns off the clipping of
    perturbed inputs to [0, 1].
    """
    settings = ml_collections.ConfigDict()
    for key in config.distill:
        settings[key] = placeholder(config.distill.get_type(key))
    settings.update(overrides)
    return settings


def group(
    config: ml_collections.ConfigDict, model: dict | None = None, **overrides
) -> ml_collections.ConfigDict:
    """Returns a group of teachers: `config.teachers` with `overrides`, and its `model`.

    The model's settings are those given; None: all of `config.model`, the students'.
    Other keys left at None take the value of `teachers`.
    """
    settings = ml_collections.ConfigDict()
    for key in config.teachers:
        if key != "groups":
            settings[key] = placeholder(config.teachers.get_type(key))
    settings.update(overrides)
    settings.model = own = ml_collections.ConfigDict()
    for key in config.model:
        own[key] = placeholder(config.model.get_type(key))
    own.update(config.model.to_dict() if model is None else model)
    return settings
