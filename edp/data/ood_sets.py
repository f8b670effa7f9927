"""Images of sets that a network never saw, as images of the shape that it takes.

* digits: scikit-learn's handwritten digits.
* noise: every pixel and channel uniform, on its own.
* a file that ends in .npz: its `test_images`, as of the source 'npz'.
* a folder: all image files below it.
* anything else: the test split of the TFDS set of this name, as 'svhn_cropped' or
  'cifar10_corrupted/fog_3'.
"""

import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from edp.data.image_reader import WHOLE, Encoded, Records
from edp.data.sources import IMAGE_SUFFIXES, Files, npz_split, read_digits
from edp.data.tfds_source import open_tfds_images
from edp.errors import InputError
from edp.runtime import storage

_SETTING = "a set of evaluation.ood_sets"


def open_foreign(
    name: str,
    *,
    size: int,
    image_shape: tuple[int, int, int],
    data_dir: str | os.PathLike | None = None,
) -> Records:
    """Finds images of another set; reads none before they are indexed.

    Whole images are squeezed or stretched to `image_shape` (bilinear; antialiased
    where they shrink) and made greyscale or colour, whichever it asks for.

    Args:
      name: of the set; see above.
      size: images drawn, the same in every run; all of a set that has fewer.
      image_shape: (H, W, C).
      data_dir: TFDS data directory; None for the TFDS default.

    Returns:
      Records of min(size, N) images uint8 [H, W, C].

    Raises:
      InputError: if there is no such set, or it cannot be prepared or read.
    """
    path = pathlib.Path(name).expanduser()
    if name in _SETS:
        encoded, count = _SETS[name](size, image_shape)
        records = Records(encoded, np.arange(count), image_shape, WHOLE)
    elif path.suffix == ".npz":
        images = npz_split(path, storage.read_npz(path), "test").images
        records = Records(_Pixels(images), np.arange(len(images)), image_shape, WHOLE)
    elif path.is_dir():
        files = [f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES]
        files = Files(sorted(f for f in files if not f.name.startswith(".")))
        records = Records(files, np.arange(len(files.paths)), image_shape, WHOLE)
    else:
        records = open_tfds_images(
            name, data_dir=data_dir, image_shape=image_shape, setting=_SETTING
        )
    if not len(records):
        raise InputError(f"{_SETTING} is {name!r}, which has no images")
    drawn = np.random.default_rng(0).permutation(len(records))[:size]
    return records.select(np.sort(drawn))


class _Pixels(NamedTuple):
    """Images in memory, uint8 [N, H, W, C] of 1 or 3 channels."""

    images: np.ndarray

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        return [_png(self.images[index]) for index in indices]

    def describe(self, index: int) -> str:
        return f"number {index}"


class _Noise(NamedTuple):
    """Images that are made up when they are asked for."""

    image_shape: tuple[int, int, int]

    def fetch(self, indices: Sequence[int]) -> list[io.BytesIO]:
        return [
            _png(np.random.default_rng([0, i]).integers(256, size=self.image_shape))
            for i in indices
        ]

    def describe(self, index: int) -> str:
        return f"number {index} of noise"


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


# By name: (size, image shape) -> what is read, and how many of them there are.
_SETS: dict[str, Callable[[int, tuple[int, int, int]], tuple[Encoded, int]]] = {
    "digits": _digits,
    "noise": _noise,
}
