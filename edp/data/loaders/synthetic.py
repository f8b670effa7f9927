"""Synthetic images, to try a configuration without data."""

import numpy as np

from edp.data import splits
from edp.data.arrays import Source, Split


def load_synthetic(
    *, image_shape: tuple[int, int, int], num_classes: int, test_size: int
) -> Source:
    """Generates images: a random pattern per class plus noise of equal amplitude.

    The same in every run. There are `test_size` test and ten times as many training
    images, and at least one of every class in each split.
    """
    rng = np.random.default_rng(0)
    patterns = rng.integers(64, 192, (num_classes, *image_shape))

    def make(size: int) -> Split:
        labels = np.arange(max(size, num_classes), dtype=np.int32) % num_classes
        noise = rng.integers(-64, 64, (len(labels), *image_shape))
        return Split((patterns[labels] + noise).astype(np.uint8), labels)

    splits.check_size("test_size", test_size)
    return Source("synthetic", make(10 * test_size), None, make(test_size), None)
