"""CIFAR-10, small."""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """The small CIFAR-10 settings."""
    config = default.get_config()
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.image_shape = (32, 32, 3)
    config.data.downsample = 2
    config.data.train_size = 5000
    config.data.validation_size = 2000
    config.data.mean = (0.491, 0.482, 0.447)
    config.data.std = (0.247, 0.243, 0.262)
    config.model.name = "resnet"
    config.model.depth = 8
    config.model.width = 24
    for section in (config.teachers, config.distill):
        section.batch_size = 64
        section.learning_rate = 0.1
        section.num_epochs = 30
        section.warmup_epochs = 5.0
    config.students = ml_collections.ConfigDict()
    config.students.single_none = default.student(config)
    for name in ("conf_ods", "disagreement"):
        config.students[f"single_{name}"] = default.student(
            config, perturbation=name, step_size=4 / 255
        )
    return config
