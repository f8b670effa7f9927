"""scikit-learn's 1,797 handwritten digits of 8x8 pixels."""

import importlib.util
import pathlib

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
    pixels, labels = _read_table()
    images = pixels.reshape(-1, 8, 8, 1)
    images = np.rint(images * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in range(10))
    return Split(images, labels.astype(np.int32)), names


def _read_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels [N, 64] and the labels [N]."""
    # Read from its file where that is found, as importing scikit-learn takes longer.
    package = importlib.util.find_spec("sklearn")
    for directory in (package and package.submodule_search_locations) or ():
        path = pathlib.Path(directory, "datasets", "data", "digits.csv.gz")
        if path.exists():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn import datasets

    return datasets.load_digits(return_X_y=True)
