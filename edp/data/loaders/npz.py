"""Arrays in an .npz file, under the names that are in use.

Images and labels of the splits are `train_images`, `train_labels` (our names and
MedMNIST's) or `x_train`, `y_train` (Keras's); the same with `test`, and optionally with
`validation` or `val`. `class_names` is optional.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from edp.data.arrays import Source, Split
from edp.data.loaders.location import checked_split, describe, existing
from edp.errors import InputError
from edp.runtime import multihost, storage

_FORMS = ("{0}_images {0}_labels", "x_{0} y_{0}")
# Split -> its spellings in names of arrays.
_SPELLINGS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


def load_npz(*, path: str | os.PathLike | None) -> Source:
    """Reads an .npz file of arrays.

    Images are uint8 [N, H, W, C], or [N, H, W] for one channel; labels are integers
    [N] or [N, 1]; `class_names` are strings [K]. Warns about arrays with other names.

    Raises:
      InputError: if the file cannot be read, or an array is missing, is there under
        two names or has another dtype or shape.
    """
    path = existing(path, "npz")
    arrays = storage.read_npz(path)
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(
            f"{path}: class_names is {describe(names)}; it must be strings [K]"
        )
    known = {name for part in _SPELLINGS for pair in _pairs(part) for name in pair}
    unknown = sorted(set(arrays) - known - {"class_names"})
    source = Source(
        origin=str(path),
        train=npz_split(path, arrays, "train"),
        validation=(
            npz_split(path, arrays, "validation")
            if any(name in arrays for pair in _pairs("validation") for name in pair)
            else None
        ),
        test=npz_split(path, arrays, "test"),
        class_names=None if names is None else tuple(names.tolist()),
    )
    if unknown:
        multihost.warn(f"{path}: arrays not read: {', '.join(unknown)}")
    return source


def npz_split(path: pathlib.Path, arrays: Mapping[str, np.ndarray], part: str) -> Split:
    """Returns the split `part` of the arrays of the file `path`.

    Raises:
      InputError: if it is missing, is there under two names, or its arrays have
        another dtype or shape.
    """
    pairs = _pairs(part)
    there = [pair for pair in pairs if any(name in arrays for name in pair)]
    if len(there) > 1:
        raise InputError(
            f"{path} has the {part} split under two names, {there[0][0]} and "
            f"{there[1][0]}; keep one of them"
        )
    images_name, labels_name = pair = there[0] if there else pairs[0]
    for name in pair:
        if name not in arrays:
            other = "" if there else f" (or {', '.join(pairs[-1])})"
            raise InputError(
                f"{path} has no array {name}{other}; it has {', '.join(sorted(arrays))}"
            )
    return checked_split(path, arrays[images_name], arrays[labels_name], pair)


def _pairs(part: str) -> Sequence[tuple[str, str]]:
    """Returns the names of images and labels that a split can have."""
    texts = [f.format(spelling) for f in _FORMS for spelling in _SPELLINGS[part]]
    return [(images, labels) for images, labels in map(str.split, texts)]
