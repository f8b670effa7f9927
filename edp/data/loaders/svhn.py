"""SVHN, cropped digits, in its MATLAB files train_32x32.mat and test_32x32.mat."""

import os
import pathlib

import numpy as np

from edp.data.arrays import Source, Split
from edp.data.loaders.location import checked_split, describe, existing_directory
from edp.errors import InputError
from edp.runtime import multihost


def load_svhn(*, path: str | os.PathLike | None) -> Source:
    """Reads SVHN; its label 10 becomes class 0.

    `X` is uint8 [32, 32, 3, N] and `y` [N, 1] with labels 1 to 10, of which 10 stands
    for the digit 0 (ufldl.stanford.edu/housenumbers). extra_32x32.mat is not read.

    Raises:
      InputError: if a file is missing, cannot be read or holds something else.
    """
    path = existing_directory(path, "svhn")
    if (path / "extra_32x32.mat").exists():
        multihost.warn(f"{path / 'extra_32x32.mat'} is not read")
    return Source(
        origin=str(path),
        train=_read(path / "train_32x32.mat"),
        validation=None,
        test=_read(path / "test_32x32.mat"),
        class_names=tuple("0123456789"),
    )


def _read(path: pathlib.Path) -> Split:
    from scipy import io  # slow to import

    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        arrays = io.loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # damaged files fail in many ways
        raise InputError(f"{path} cannot be read as a MATLAB file: {error}") from error
    missing = [name for name in ("X", "y") if name not in arrays]
    if missing:
        raise InputError(f"{path} has no array {' or '.join(missing)}")
    images, labels = arrays["X"], arrays["y"]
    if images.ndim != 4:
        raise InputError(
            f"{path}: X is {describe(images)}; it must be uint8 [H, W, C, N]"
        )
    split = checked_split(path, np.moveaxis(images, -1, 0), labels, ("X", "y"))
    labels = split.labels.astype(np.int32)
    if labels.size and not (labels.min() >= 1 and labels.max() <= 10):
        raise InputError(
            f"{path}: y has labels {labels.min()} to {labels.max()}; they must be 1 to "
            "10, 10 for the digit 0"
        )
    return Split(split.images, labels % 10)
