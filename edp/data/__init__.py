"""Image classification datasets, and their batches on the device.

On the host: `create_dataset` loads a dataset from one of the sources
(`edp.data.sources`) and holds out validation examples (`edp.data.splits`). Images are
uint8 arrays in memory, or stay on disk until they are indexed
(`edp.data.image_reader`); for training they are read ahead of the steps
(`edp.data.prefetch`). Every image file is decoded by one function
(`edp.data.image_preparation`). `open_foreign` opens images of another dataset, resized
to this one's shape (`edp.data.ood_sets`).

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
from edp.data.digest import dataset_digest, split_digest
from edp.data.image_preparation import RESIZES
from edp.data.image_reader import Records
from edp.data.ood_sets import open_foreign
from edp.data.prefetch import EpochOrder, StepReader, read_steps
from edp.data.soft_labels import read_soft_labels, read_training_labels
from edp.data.sources import SOURCES
from edp.data.splits import HOLD_OUT, fixed_part, fixed_subset

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
    "dataset_digest",
    "downsample",
    "epoch_order",
    "fixed_part",
    "fixed_subset",
    "open_foreign",
    "read_soft_labels",
    "read_steps",
    "read_training_labels",
    "split_digest",
    "take",
    "to_float",
]
