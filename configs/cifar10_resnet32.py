"""CIFAR-10 with ResNet-32, as in the paper.

Nam, Yoon, Lee and Lee, *Diversity Matters When Learning From Ensembles*, NeurIPS
2021, arXiv 2110.14149: four teachers, and BatchEnsemble students of four members.

    python -m launch.run --config=configs/cifar10_resnet32.py \\
        --workdir=runs/c10_resnet32

Another seed, and a single student:

    python -m launch.run --config=configs/cifar10_resnet32.py --config.seed=1 \\
        --workdir=runs/c10_resnet32_1
    python -m launch.distill --config=configs/cifar10_resnet32.py --only=be_conf_ods \\
        --workdir=runs/c10_resnet32

`:gpu` computes in bfloat16 and several steps per dispatched program; the rest is the
same. Where jobs may run for ten minutes at most, each goes on where the last one was
stopped, until all is done or an error ends it (DIR is a TFDS directory):

    until timeout 540 python -m launch.run --config=configs/cifar10_resnet32.py:gpu \\
        --config.data.data_dir=DIR --workdir=runs/c10_resnet32_gpu
    do [ $? = 124 ] || break; done

Expected result: not yet measured; the published one is not available to us.

The last 5,000 training images are for validation. The last epoch is kept;
`--config.teachers.select=best --config.distill.select=best` keeps the epoch with the
highest validation accuracy. The student `be_disagreement` is ours.
"""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings of the paper for CIFAR-10, or "gpu" or "debug" ones."""
    if variant not in ("", "debug", "gpu"):
        raise ValueError(f"variant {variant!r}; accepted: debug, gpu, or none")
    config = default.get_config()
    data = config.data
    data.source, data.name = "tfds", "cifar10"
    data.image_shape, data.num_classes = (32, 32, 3), 10
    data.validation, data.validation_size = "last", 5000
    data.mean, data.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    data.crop_padding, data.flip = 4, True
    config.model.name, config.model.depth, config.model.width = "resnet", 32, 16

    teachers, distill = config.teachers, config.distill
    for section in (teachers, distill):
        section.schedule = "step_linear"
        section.weight_decay = 4e-4
    teachers.num_epochs, teachers.milestones = 200, (100, 180)
    teachers.batch_size, teachers.learning_rate = 512, 0.4
    distill.student = "batch_ensemble"
    distill.num_epochs, distill.milestones = 250, (125, 225)
    distill.batch_size, distill.learning_rate = 128, 0.1
    distill.rank_one_lr_factor = 0.5
    distill.alpha, distill.temperature, distill.step_size = 0.9, 4.0, 1 / 255
    # The quantity to ascend is our choice; see configs/cifar10_small.py.
    distill.quantity = "projection"
    distill.random_members = 2

    config.students = ml_collections.ConfigDict()
    for name in ("none", "gaussian", "ods", "conf_ods", "disagreement"):
        config.students[f"be_{name}"] = default.student(config, perturbation=name)
    if variant == "gpu":
        config.dtype = "bfloat16"
        config.steps_per_dispatch = 20
        config.checkpoint_minutes = 1.0
        return config
    return default.choose(config, variant)
