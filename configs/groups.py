"""Teachers of two architectures on the digits, distilled into a small network.

    python -m launch.run --config=configs/groups.py --workdir=runs/groups

Two residual networks and two vision transformers, each with an optimizer of its own,
teach a convolutional network.
"""

import ml_collections

from . import default, digits


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the digits settings with two groups of teachers."""
    config = digits.get_config()
    groups = config.teachers.groups
    groups.resnet = default.group(
        config, {"name": "resnet", "depth": 8, "width": 8}, num_members=2
    )
    groups.vit = default.group(
        config,
        {"name": "vit", "depth": 2, "width": 32, "heads": 2, "patch_size": 2},
        num_members=2,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=1e-2,
    )
    config.teachers.num_members = 4
    return default.choose(config, variant)
