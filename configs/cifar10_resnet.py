"""CIFAR-10 at full size, sized for a CPU."""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = default.get_config()
    data = config.data
    data.source, data.name = "tfds", "cifar10"
    data.image_shape, data.num_classes = (32, 32, 3), 10
    data.validation_size = 5000
    data.mean, data.std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    config.model.name = "resnet"
    config.model.depth, config.model.width, config.model.stem_strides = 8, 48, 2
    for section in (config.teachers, config.distill):
        section.batch_size, section.learning_rate = 128, 0.1
        section.num_epochs, section.warmup_epochs = 12, 2.0
        section.weight_decay = 5e-4
    config.students = ml_collections.ConfigDict()
    config.students.single_none = default.student(config, perturbation="none")
    return config
