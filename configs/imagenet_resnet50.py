"""ImageNet (ILSVRC 2012) with ResNet-50, streamed from disk.

Not an experiment of the paper (arXiv 2110.14149). The networks are trained by common
practice: 90 epochs, learning rate 0.1 for 256 images (Goyal et al., *Accurate, Large
Minibatch SGD*, 2017, arXiv 1706.02677), cosine schedule, random crops of 8 to 100 %
of the area and flips. Result: not measured.

    python -m launch.run --config=configs/imagenet_resnet50.py \\
        --config.data.data_dir=DIR --workdir=runs/imagenet

DIR is a TFDS directory with `imagenet2012` in array_record format; TFDS prepares it
from the manually downloaded archives. Grain reads it in worker processes. For several
hosts, see docs/many-hosts.md.

The official validation split is the test set; 10,000 training images, 10 per class, are
for validation.
"""

import ml_collections

from . import default


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the ImageNet settings."""
    config = default.get_config()
    config.dtype = "bfloat16"
    data = config.data
    data.source, data.name, data.test_split = "tfds", "imagenet2012", "validation"
    data.image_shape, data.num_classes = (224, 224, 3), 1000
    data.validation_size = 10_000
    data.stream, data.num_workers, data.resize = True, 16, "random_crop"
    data.mean, data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    data.flip = True
    config.model.name = "resnet50"
    config.model.blocks = (3, 4, 6, 3)

    distill = config.distill
    for section in (config.teachers, distill):
        section.schedule, section.warmup_epochs = "cosine", 5.0
        section.num_epochs = 90
        section.batch_size, section.learning_rate = 256, 0.1
        section.weight_decay = 1e-4
    distill.temperature, distill.step_size = 1.0, 1 / 255
    # The quantity to ascend is our choice; see configs/cifar10_small.py.
    distill.quantity = "projection"
    distill.random_members = 2

    config.students = ml_collections.ConfigDict()
    for name in ("none", "conf_ods", "disagreement"):
        config.students[f"single_{name}"] = default.student(config, perturbation=name)
    return default.choose(config, variant)
