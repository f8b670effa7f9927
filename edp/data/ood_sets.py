"""Out-of-distribution datasets, resized to the shape of the network's input.

* digits: scikit-learn's handwritten digits.
* noise: every pixel and channel uniform and independent.
* a file that ends in .npz: its test images, as of the source 'npz'.
* a file that ends in .npy: uint8 images [N, H, W, C], as those of CIFAR-10-C.
* a folder: all image files below it.
* any other name: the test split of the TFDS dataset of this name, as 'svhn_cropped' or
  'cifar10_corrupted/fog_3'.
"""

import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from edp.data.arrays import read_images
from edp.data.image_files import Files, images_below, warn_left_out
from edp.data.image_preparation import WHOLE
from edp.data.image_reader import Encoded, Records
from edp.data.loaders.digits import read_digits
from edp.data.loaders.npz import npz_split
from edp.data.loaders.tfds import open_tfds_images
from edp.errors import InputError
from edp.runtime import storage

_SETTING = "a set of evaluation.ood_sets"
_CHECKED_AT_ONCE = 64  # images decoded before they are used, to find bad ones


def open_foreign(
    name: str,
    *,
    size: int,
    image_shape: tuple[int, int, int],
    data_dir: str | os.PathLike | None = None,
) -> Records:
    """Opens images of another dataset; image files are read when indexed.

    Each is read once here, so that a bad one is found before training.

    Whole images are resized to `image_shape`, without keeping the aspect ratio, and
    converted to greyscale or colour (`edp.data.image_preparation`).

    Args:
      name: of the dataset; see above.
      size: number of images, drawn the same in every run; all if there are fewer.
      image_shape: (H, W, C).
      data_dir: TFDS data directory; None for the TFDS default.

    Returns:
      Records of min(size, N) images uint8 [H, W, C].

    Raises:
      InputError: if there is no such dataset, it cannot be prepared, or one of its
        images cannot be read.
    """
    path = pathlib.Path(name).expanduser()
    if name in _SETS:
        encoded, count = _SETS[name](size, image_shape)
        records = Records(encoded, np.arange(count), image_shape, WHOLE)
    elif path.suffix == ".npz":
        records = _in_memory(
            npz_split(path, storage.read_npz(path), "test").images, image_shape
        )
    elif path.suffix == ".npy":
        records = _in_memory(read_images(path), image_shape)
    elif path.is_dir():
        records = _folder(path, image_shape)
    else:
        records = open_tfds_images(
            name, data_dir=data_dir, image_shape=image_shape, setting=_SETTING
        )
    if not len(records):
        raise InputError(f"{_SETTING} is {name!r}, which has no images")
    drawn = np.random.default_rng(0).permutation(len(records))[:size]
    records = records.select(np.sort(drawn))
    if not isinstance(records.encoded, _Pixels | _Noise):
        for start in range(0, len(records), _CHECKED_AT_ONCE):
            records[start : start + _CHECKED_AT_ONCE]  # raises for a bad image
    return records


def _in_memory(images: np.ndarray, image_shape: tuple[int, int, int]) -> Records:
    return Records(_Pixels(images), np.arange(len(images)), image_shape, WHOLE)


def _folder(path: pathlib.Path, image_shape: tuple[int, int, int]) -> Records:
    try:
        found = images_below(path)
    except OSError as error:
        raise InputError(f"{_SETTING}: {path} cannot be read: {error}") from error
    warn_left_out(path, found.left_out)
    files = Files(found.paths, path)
    return Records(files, np.arange(len(files.paths)), image_shape, WHOLE)


class _Pixels(NamedTuple):
    """Images in memory, uint8 [N, H, W, C] of 1 or 3 channels."""

    images: np.ndarray

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        return [_png(self.images[index]) for index in indices]

    def describe(self, index: int) -> str:
        return f"number {index}"

    def fingerprint(self, index: int) -> bytes:
        """Returns the pixels."""
        return np.ascontiguousarray(self.images[index]).tobytes()


class _Noise(NamedTuple):
    """Uniform noise, generated when it is indexed."""

    image_shape: tuple[int, int, int]

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        return [
            _png(np.random.default_rng([0, i]).integers(256, size=self.image_shape))
            for i in indices
        ]

    def describe(self, index: int) -> str:
        return f"number {index} of noise"

    def fingerprint(self, index: int) -> bytes:
        """Returns the seed and the shape."""
        return f"noise {index} {self.image_shape}".encode()


def _png(pixels: np.ndarray) -> io.BytesIO:
    pixels = np.asarray(pixels, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "PNG", compress_level=0
    )
    file.seek(0)
    return file


def _digits(size: int, image_shape: tuple[int, int, int]) -> tuple[Encoded, int]:
    del size, image_shape
    images = read_digits()[0].images
    return _Pixels(images), len(images)


def _noise(size: int, image_shape: tuple[int, int, int]) -> tuple[Encoded, int]:
    return _Noise(image_shape), size


# Name -> function: (size, image shape) -> images, and their number.
_SETS: dict[str, Callable[[int, tuple[int, int, int]], tuple[Encoded, int]]] = {
    "digits": _digits,
    "noise": _noise,
}
