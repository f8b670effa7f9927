"""Tiny ImageNet with WRN-28-5, from a folder of images.

Four teachers and BatchEnsemble students of four members, at τ = 1, as in the
experiments of arXiv 2110.14149. Training follows common practice, not the
paper. Published result: not available to us.

    python -m launch.run --config=configs/tiny_imagenet_wrn28x5.py \\
        --config.data.path=tiny-imagenet --workdir=runs/tiny_imagenet

The folder holds `train/CLASS/*.JPEG` and `test/CLASS/*.JPEG`, 200 classes of 64x64
pixels. The official test images have no labels, so `test` holds the official validation
split, sorted by class. 10,000 training images, 50 per class, are for validation.
"""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the Tiny ImageNet settings."""
    config = default.get_config()
    data = config.data
    data.source = "folder"
    data.image_shape, data.num_classes = (64, 64, 3), 200
    data.validation_size = 10_000
    data.mean, data.std = (0.480, 0.448, 0.398), (0.277, 0.269, 0.282)
    data.crop_padding, data.flip = 4, True
    config.model.name = "wide_resnet"
    config.model.depth, config.model.widen_factor = 28, 5

    distill = config.distill
    for section in (config.teachers, distill):
        section.schedule, section.warmup_epochs = "cosine", 5.0
        section.num_epochs = 200
        section.batch_size, section.learning_rate = 128, 0.1
        section.weight_decay = 5e-4
    distill.student = "batch_ensemble"
    distill.alpha, distill.temperature, distill.step_size = 0.9, 1.0, 1 / 255
    # The quantity to ascend is our choice; see configs/cifar10_small.py.
    distill.quantity = "projection"
    distill.random_members = 2

    config.students = ml_collections.ConfigDict()
    for name in ("none", "gaussian", "ods", "conf_ods", "disagreement"):
        config.students[f"be_{name}"] = default.student(config, perturbation=name)
    return default.choose(config, variant)
