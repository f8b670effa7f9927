"""CIFAR-10 at 16x16 with vision transformers, which have no batch normalisation.

    python -m launch.run --config=configs/cifar10_vit.py \\
        --config.data.data_dir=DIR --workdir=runs/vit

The images, splits and step sizes are those of configs/cifar10_small.py. A network has
4 blocks of width 64 on 64 patches of 2x2 pixels, and trains with AdamW. The settings
have not been tuned.
"""

import ml_collections

from . import cifar10_small, default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the small CIFAR-10 settings with transformers."""
    config = cifar10_small.get_config()
    config.model.update({"name": "vit", "depth": 4, "width": 64})
    config.model.update({"heads": 4, "patch_size": 2})
    for section in (config.teachers, config.distill):
        section.optimizer = "adamw"
        section.learning_rate, section.weight_decay = 1e-3, 1e-2
        section.num_epochs = 40
    config.students = ml_collections.ConfigDict()
    for prefix, student in (("single", "single"), ("be", "batch_ensemble")):
        for perturbation in ("none", "mixup", "conf_ods", "disagreement"):
            config.students[f"{prefix}_{perturbation}"] = default.student(
                config, student=student, perturbation=perturbation
            )
    return default.choose(config, variant)
