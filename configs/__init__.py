"""Shipped configurations, and their debug variants; `default.py` has every setting."""

import ml_collections


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

    Two of the smallest networks and at most three students, each for one epoch of four
    steps; schedules, optimizers and methods stay the config's.
    """
    data = config.data
    data.source = "synthetic"
    data.stream, data.resize, data.num_workers, data.downsample = False, "none", 0, 1
    data.train_size, data.validation_size, data.test_size = 40, 20, 20
    data.calibration_size = None
    data.num_classes = min(data.num_classes, 10)
    data.image_shape = (16, 16, data.image_shape[-1])
    config.model.update(_SMALLEST[config.model.name])
    config.teachers.num_members = 2

    def is_perturbed(name):
        own = config.students[name].perturbation
        return (own or config.distill.perturbation) != "none"

    for name in sorted(config.students, key=is_perturbed)[3:]:  # keep a plain one
        del config.students[name]
    for section in (config.teachers, config.distill, *config.students.values()):
        section.num_epochs = 1
        section.batch_size = 10
        section.accumulate_steps = 1
        for key in ("random_members", "functional_teachers"):
            if section.get(key) is not None:
                section[key] = 2
    config.evaluation.diversity_size = 20
    config.evaluation.gallery_size = 2
    config.evaluation.ood_size = config.evaluation.corruption_size = 20
    if config.evaluation.ood_sets:
        config.evaluation.ood_sets = ("digits", "noise")
    return config
