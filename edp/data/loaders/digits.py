"""scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

import numpy as np

from edp.data import splits
from edp.data.arrays import Source, Split


def load_digits(*, test_size: int) -> Source:
    """Reads scikit-learn's digits; pixel values 0 to 16 are scaled to 0 to 255.

    They have no test split, so a stratified one is drawn, the same in every run.

    Raises:
      InputError: if `test_size` leaves fewer than two training examples.
    """
    every, class_names = read_digits()
    num_examples = len(every.labels)
    splits.check_size("test_size", test_size, num_examples - 2)
    tested = splits.fixed_subset(every.labels, "test_size", test_size)
    return Source(
        origin="digits",
        train=every.select(np.setdiff1d(np.arange(num_examples), tested)),
        validation=None,
        test=every.select(tested),
        class_names=class_names,
    )


def read_digits() -> tuple[Split, tuple[str, ...]]:
    """Returns all of scikit-learn's digits and their class names."""
    from sklearn import datasets  # slow to import

    digits = datasets.load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    return Split(images, digits.target.astype(np.int32)), names
