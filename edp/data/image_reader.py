"""Lazily read images, indexed like an array."""

import concurrent.futures
import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np

from edp.data import decoding_processes, image_preparation
from edp.data.decoding_processes import DecodingProcesses
from edp.data.image_preparation import RESIZES, WHOLE
from edp.errors import InputError

_CHUNK = 16  # images per thread and read
_CHUNK_BYTES = 1 << 20  # pixels per process and read
# Pixels up to which one thread reads. Most of the time of such an image is Python's,
# and threads that wait for its lock take up to 1.9 times as long.
_FEW_PIXELS = 64 * 64


class Encoded(Protocol):
    """Encoded images, such as files or records. Picklable."""

    def fetch(self, indices: Sequence[int]) -> Sequence[str | os.PathLike | BinaryIO]:
        """Returns, for each index, what `PIL.Image.open` takes."""

    def describe(self, index: int) -> str:
        """Names one image in messages."""

    def fingerprint(self, index: int) -> bytes:
        """Identifies the content of one image, wherever its files are."""


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
      num_threads: decoding threads; None: processes for many images, one thread for
        small images of a fixed size, and else about as many as there are cores.
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
        if self.image_shape[2] not in (1, 3):
            raise InputError(
                f"data.image_shape is {self.image_shape}; images are decoded to 1 or "
                "3 channels"
            )

    @property
    def threads(self) -> int | None:
        """Number of threads that read; None: about the number of cores."""
        height, width, _ = self.image_shape
        if self.num_threads is None and self.resize == "none":
            return 1 if height * width <= _FEW_PIXELS else None
        return self.num_threads

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return len(self.indices), *self.image_shape

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, indices: np.ndarray | slice) -> "Records":
        """Returns the images at `indices` [n] without reading them."""
        return dataclasses.replace(self, indices=self.indices[indices])

    def __getitem__(self, indices: slice | np.ndarray) -> np.ndarray:
        return self.read(indices)

    def read(
        self,
        indices: slice | np.ndarray,
        seeds: Sequence[Any] | None = None,
        processes: DecodingProcesses | None = None,
    ) -> np.ndarray:
        """Reads images.

        Args:
          indices: a slice, or integers [n].
          seeds: for each image the seed of its random crop, for
            `numpy.random.default_rng`; None: central crops. Unused unless `resize`
            is 'random_crop'.
          processes: that decode the images, unless there are `seeds`; None: those of
            this call, if it reads enough images (see `decoding_processes`).

        Returns:
          uint8 [n, H, W, C].

        Raises:
          InputError: for an image that cannot be read or does not fit.
          RuntimeError: if a decoding process is killed.
        """
        wanted = self.indices[indices]
        images = np.empty((len(wanted), *self.image_shape), np.uint8)
        with contextlib.ExitStack() as stack:
            if seeds is not None:
                processes = None
            elif processes is None and self.num_threads is None:
                own = decoding_processes.decoding(len(wanted))
                processes = stack.enter_context(own)
            threads, size = self.threads, _CHUNK
            if processes is not None:
                threads = processes.number
                size = max(1, _CHUNK_BYTES // math.prod(self.image_shape))

            def read_chunk(start):
                chunk = slice(start, start + size)
                some = None if seeds is None else seeds[chunk]
                self._read_chunk(wanted[chunk], images[chunk], some, processes)

            # Pillow releases the GIL while it decodes and resizes.
            pool = concurrent.futures.ThreadPoolExecutor(threads)
            stack.enter_context(pool)
            try:
                for _ in pool.map(read_chunk, range(0, len(wanted), size)):
                    pass
            except BaseException:
                if processes is not None:
                    processes.close()  # for the threads wait for them
                raise
        return images

    def _read_chunk(
        self,
        wanted: np.ndarray,
        out: np.ndarray,
        seeds: Sequence[Any] | None,
        processes: DecodingProcesses | None,
    ) -> None:
        """Reads some images of `encoded` [n] into `out` [n, H, W, C]."""
        chunk = wanted.tolist()
        fetched = self.encoded.fetch(chunk)
        if processes is not None:
            if processes.prepare(fetched, out, self.resize):
                return
            fetched = self.encoded.fetch(chunk)  # once more here, to raise the error
        for i, encoded in zip(range(len(chunk)), fetched, strict=True):
            out[i] = image_preparation.prepare(
                encoded,
                self.encoded.describe(chunk[i]),
                self.image_shape,
                self.resize,
                None if seeds is None else seeds[i],
            )
