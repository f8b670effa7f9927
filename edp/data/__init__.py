"""Image classification sets, and batches of them on the device.

On the host: `create_dataset` finds a set in one of the sources
(`edp.data.sources`) and holds out validation examples (`edp.data.splits`). Its
images are kept in memory as uint8, which suits sets up to a few gigabytes, or read
from disk when they are indexed (`edp.data.image_reader`), and for training batch by
batch ahead of the steps (`edp.data.prefetch`). `open_foreign` finds images of another
set, brought to the shape of this one's (`edp.data.ood_sets`).

On the device, pure and jittable: `epoch_order`, `take`, `to_float` and `augment`
(`edp.data.augmentation`). A training step reads

    images, labels = take(train, order[step])  # unless the batch was streamed
    images = to_float(augment(key, images, crop_padding=4, flip=True))
"""

from edp.data.arrays import Dataset, Split, downsample
from edp.data.augmentation import (
    augment,
    bootstrap_samples,
    epoch_order,
    take,
    to_float,
)
from edp.data.dataset import create_dataset
from edp.data.image_reader import RESIZES, Records
from edp.data.ood_sets import open_foreign
from edp.data.prefetch import EpochOrder, StepReader, read_steps
from edp.data.sources import SOURCES
from edp.data.splits import HOLD_OUT, fixed_subset

__all__ = [
    "HOLD_OUT",
    "RESIZES",
    "SOURCES",
    "Dataset",
    "EpochOrder",
    "Records",
    "Split",
    "StepReader",
    "augment",
    "bootstrap_samples",
    "create_dataset",
    "downsample",
    "epoch_order",
    "fixed_subset",
    "open_foreign",
    "read_steps",
    "take",
    "to_float",
]
