"""Lazily read images, decoded and resized with Pillow."""

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import Image

from edp.errors import InputError

RESIZES = ("none", "random_crop")
WHOLE = "whole"  # resizes the whole image, aspect ratio not kept
_MODES = {1: "L", 3: "RGB"}
_CHUNK = 16  # images per thread and read
# Random crops: share of the image's area, ratio of width to height, draws before the
# whole image is taken. Central crops: share of the shorter side.
_AREAS, _RATIOS, _DRAWS = (0.08, 1.0), (3 / 4, 4 / 3), 10
_CENTRE = 224 / 256

_Box = tuple[float, float, float, float]  # left, top, right, bottom


class Encoded(Protocol):
    """Encoded images, such as files or records. Picklable."""

    def fetch(self, indices: Sequence[int]) -> Sequence[str | os.PathLike | BinaryIO]:
        """Returns, for each index, what `PIL.Image.open` takes."""

    def describe(self, index: int) -> str:
        """Names one image in messages."""


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Images on disk that are indexed like an array [N, H, W, C].

    `records[indices]`, for a slice or integers [n], reads uint8 [n, H, W, C];
    `records[:]` reads all images.

    Attributes:
      encoded: source of the encoded images.
      indices: of the images within `encoded`, in order [N].
      image_shape: (H, W, C) of the decoded images.
      resize: 'none' for images of exactly this size; 'random_crop' for images of
        any size, cropped at random in training and centrally in evaluation; `WHOLE`
        for images of any size, resized without keeping the aspect ratio.
      num_threads: decoding threads; None: about the number of cores.
    """

    encoded: Encoded
    indices: np.ndarray
    image_shape: tuple[int, int, int]
    resize: str = "none"
    num_threads: int | None = None

    def __post_init__(self):
        if self.resize not in (*RESIZES, WHOLE):
            raise InputError(
                f"data.resize is {self.resize!r}; it must be one of "
                f"{', '.join(repr(known) for known in RESIZES)}"
            )
        if self.image_shape[2] not in _MODES:
            raise InputError(
                f"data.image_shape is {self.image_shape}; images are decoded to 1 or "
                "3 channels"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return len(self.indices), *self.image_shape

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, indices: np.ndarray) -> "Records":
        """Returns the images at `indices` [n] without reading them."""
        return dataclasses.replace(self, indices=self.indices[indices])

    def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
        return self.read(indices)

    def read(
        self, indices: slice | np.ndarray, seeds: Sequence[Any] | None = None
    ) -> np.ndarray:
        """Reads images.

        Args:
          indices: a slice, or integers [n].
          seeds: for each image the seed of its random crop, for
            `numpy.random.default_rng`; None: central crops. Unused unless `resize`
            is 'random_crop'.

        Returns:
          uint8 [n, H, W, C].

        Raises:
          InputError: for an image that cannot be read or does not fit.
        """
        wanted = self.indices[indices]
        images = np.empty((len(wanted), *self.image_shape), np.uint8)

        def read_chunk(start):
            stop = min(start + _CHUNK, len(wanted))
            chunk = [int(index) for index in wanted[start:stop]]
            fetched = self.encoded.fetch(chunk)
            for i, encoded in zip(range(start, stop), fetched, strict=True):
                seed = None if seeds is None else seeds[i]
                images[i] = self._decode(encoded, int(wanted[i]), seed)

        # Pillow releases the GIL while it decodes and resizes.
        with concurrent.futures.ThreadPoolExecutor(self.num_threads) as pool:
            for _ in pool.map(read_chunk, range(0, len(wanted), _CHUNK)):
                pass
        return images

    def _decode(self, encoded: Any, index: int, seed: Any) -> np.ndarray:
        height, width, channels = self.image_shape
        try:
            with Image.open(encoded) as image:
                size, mode = image.size, image.mode
                fits = self.resize != "none" or size == (width, height)
                if fits and mode[0] not in "IF":
                    image = image.convert(_MODES[channels])
                    if self.resize != "none":
                        if self.resize == WHOLE:
                            box = None
                        elif seed is None:
                            box = central_box(size, (width, height))
                        else:
                            box = random_box(size, np.random.default_rng(seed))
                        bilinear = Image.Resampling.BILINEAR
                        image = image.resize((width, height), bilinear, box)
                    return np.asarray(image).reshape(self.image_shape)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            raise InputError(
                f"cannot read the image {self.encoded.describe(index)}: {e}"
            ) from e
        where = self.encoded.describe(index)
        if not fits:
            raise InputError(
                f"{where} is {size[1]}x{size[0]} (height x width), but "
                f"data.image_shape asks for {height}x{width}"
            )
        raise InputError(f"{where} has pixels of mode {mode}; they must have 8 bits")


def central_box(size: tuple[int, int], target: tuple[int, int]) -> _Box:
    """Returns the crop of an image for evaluation.

    Equals resizing the shorter side to 256/224 of the target's and cropping the
    centre, in one resampling step.

    Args:
      size: width and height.
      target: width and height; the crop has their ratio.
    """
    scale = _CENTRE * min(size[0] / target[0], size[1] / target[1])
    width, height = target[0] * scale, target[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def random_box(size: tuple[int, int], rng: np.random.Generator) -> _Box:
    """Draws a crop for training (Szegedy et al., arXiv 1409.4842, section 6).

    The area is uniform in 8% to 100% of the image's, the aspect ratio log-uniform in
    3/4 to 4/3, the position uniform. After ten draws that do not fit into the image,
    the whole image is taken.
    """
    for _ in range(_DRAWS):
        area = size[0] * size[1] * rng.uniform(*_AREAS)
        ratio = math.exp(rng.uniform(*np.log(_RATIOS)))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= size[0] and height <= size[1]:
            left = rng.uniform(0, size[0] - width)
            top = rng.uniform(0, size[1] - height)
            # Rounding must not exceed the image.
            return left, top, min(left + width, size[0]), min(top + height, size[1])
    return 0, 0, *size
