"""CIFAR-100 with WRN-28-10, as in the paper.

Nam, Yoon, Lee and Lee, *Diversity Matters When Learning From Ensembles*, NeurIPS
2021, arXiv 2110.14149: four teachers, and BatchEnsemble students of four members.

    python -m launch.run --config=configs/cifar100_wrn28x10.py \\
        --workdir=runs/c100_wrn28x10

On eight devices, with members and batches split:

    python -m launch.run --config=configs/cifar100_wrn28x10.py \\
        --config.mesh.member=4 --config.mesh.data=2 --workdir=runs/c100_wrn28x10

Published result (accuracy in %, calibrated NLL; DE-m: the first m members;
temperatures fitted on the validation images):

    DE-1   80.22  0.789      be_none      80.40  0.750
    DE-2   81.90  0.708      be_gaussian  80.04  0.760
    DE-3   82.46  0.673      be_ods       81.92  0.682
    DE-4   82.54  0.655      be_conf_ods  82.25  0.665

In the results, `prefix_accuracy`, `prefix_cnll` and `gap_closed_prefix` are computed on
that basis; `gap_closed` uses the mean over members.

The published runs used four GPUs, where BatchNorm normalised over 64 images of a
teacher's batch, or 16 x 4 members of a student's. Here BatchNorm normalises over the
whole batch; `--config.model.batchnorm_groups=4` normalises over four parts. The last
5,000 training images are for validation. The last epoch is kept;
`--config.teachers.select=best --config.distill.select=best` keeps the epoch with the
highest validation accuracy. The student `be_disagreement` is ours.
"""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings of the paper for CIFAR-100."""
    config = default.get_config()
    data = config.data
    data.source, data.name = "tfds", "cifar100"
    data.image_shape, data.num_classes = (32, 32, 3), 100
    data.validation, data.validation_size = "last", 5000
    data.mean, data.std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    data.crop_padding, data.flip = 4, True
    config.model.name = "wide_resnet"
    config.model.depth, config.model.widen_factor = 28, 10

    teachers, distill = config.teachers, config.distill
    for section in (teachers, distill):
        section.schedule = "step_linear"
        section.num_epochs, section.milestones = 300, (150, 270)
        section.weight_decay = 5e-4
    teachers.batch_size, teachers.learning_rate = 256, 0.2
    distill.student = "batch_ensemble"
    distill.batch_size, distill.learning_rate = 64, 0.05
    distill.rank_one_lr_factor = 0.5
    distill.alpha, distill.temperature, distill.step_size = 0.9, 1.0, 1 / 255
    # The quantity to ascend is our choice; see configs/cifar10_small.py.
    distill.quantity = "projection"
    distill.random_members = 2

    config.students = ml_collections.ConfigDict()
    for name in ("none", "gaussian", "ods", "conf_ods", "disagreement"):
        config.students[f"be_{name}"] = default.student(config, perturbation=name)
    return default.choose(config, variant)
