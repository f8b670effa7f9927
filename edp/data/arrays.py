"""Datasets and splits as arrays, and the checks that every dataset passes."""

import os
from typing import NamedTuple

import numpy as np

from edp.data.decoding_processes import DecodingProcesses
from edp.data.image_reader import Records
from edp.errors import InputError


class Split(NamedTuple):
    """Examples: images uint8 [N, H, W, C] and labels int32 [N].

    Images are in memory, or `Records` that are read when indexed; labels are in
    memory.
    """

    images: np.ndarray | Records
    labels: np.ndarray

    def select(self, indices: np.ndarray | slice) -> "Split":
        """Returns the examples at `indices` [n], in that order; reads no images."""
        if isinstance(self.images, Records):
            return Split(self.images.select(indices), self.labels[indices])
        return Split(self.images[indices], self.labels[indices])

    def in_memory(self, processes: DecodingProcesses | None = None) -> "Split":
        """Returns the same examples with all images in memory; see `Records.read`."""
        if isinstance(self.images, Records):
            everything = slice(None)
            return self._replace(images=self.images.read(everything, None, processes))
        return self._replace(images=np.asarray(self.images[:]))

    def downsample(self, factor: int) -> "Split":
        """Applies `downsample` to the images, which must be in memory."""
        return self._replace(images=downsample(self.images, factor))


def downsample(images: np.ndarray, factor: int) -> np.ndarray:
    """Computes the mean over squares of `factor` x `factor` pixels.

    Args:
      images: uint8 [N, H, W, C]; H and W divide by `factor`.
      factor: side of the squares; 1 returns `images`.

    Returns:
      uint8 [N, H / factor, W / factor, C].
    """
    if factor == 1:
        return images
    n, height, width, channels = images.shape
    squares = (n, height // factor, factor, width // factor, factor, channels)
    total = images.reshape(squares).sum(axis=(2, 4), dtype=np.uint32)
    return np.rint(total / factor**2).astype(np.uint8)


class Dataset(NamedTuple):
    """The three splits of a dataset, and the names of its K classes.

    `full_test` is `test` before downsampling: its images have shape `image_shape`,
    and stay on disk until they are indexed where the source reads lazily. `tested`,
    bool [N'], marks the examples of the source's test split that are in `test`, and
    `trained` those of its training split that are in `train`.
    `class_directories` are the names of the directories of the K classes, where the
    source has such; ImageNet's differ from the names of its classes.
    `calibration` is held out of `validation`; None without `data.calibration_size`.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    full_test: Split
    tested: np.ndarray
    trained: np.ndarray
    class_directories: tuple[str, ...] | None = None
    calibration: Split | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


class Source(NamedTuple):
    """The splits of a source, before validation examples are held out.

    `origin` names the source in messages. `validation` is None if the source has no
    validation split, `class_names` if it does not name its classes,
    `class_directories` if it has no directories of classes.
    """

    origin: str
    train: Split
    validation: Split | None
    test: Split
    class_names: tuple[str, ...] | None
    class_directories: tuple[str, ...] | None = None


def check_source(
    source: Source, *, image_shape: tuple[int, int, int], num_classes: int
) -> Source:
    """Checks a source against `image_shape` and `num_classes`.

    Returns:
      The source with int32 labels, C-contiguous arrays and class names ('0', '1',
      ... if it has none).

    Raises:
      InputError: if a split is empty, two classes share a name, or the images' shape or
        the number of classes differs from the configuration.
    """
    parts = {"train": source.train, "test": source.test}
    if source.validation is not None:
        parts["validation"] = source.validation
    for name, split in parts.items():
        if len(split.labels) == 0:
            raise InputError(f"{source.origin}: the {name} split has no examples")
        if split.images.shape[1:] != image_shape:
            raise InputError(
                f"data.image_shape is {image_shape}, but the {name} images of "
                f"{source.origin} are {split.images.shape[1:]}"
            )
    largest = max(int(split.labels.max()) for split in parts.values())
    found = largest + 1 if source.class_names is None else len(source.class_names)
    if found != num_classes:
        detail = "" if source.class_names else f" (largest label {largest}, no names)"
        raise InputError(
            f"data.num_classes is {num_classes}, but {source.origin} has {found} "
            f"classes{detail}"
        )
    for name, split in parts.items():
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= num_classes))
        if wrong.size:
            raise InputError(
                f"{source.origin}: label {split.labels[wrong[0]]} of {name} example "
                f"{wrong[0]}; data.num_classes is {num_classes}, so labels must be "
                f"0 to {num_classes - 1}"
            )
    names = source.class_names or tuple(str(label) for label in range(num_classes))
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(
            f"{source.origin}: two classes are named {twice[0]!r}; class names "
            "must be distinct"
        )
    parts = {name: _contiguous(split) for name, split in parts.items()}
    return source._replace(class_names=names, **parts)


def _contiguous(split: Split) -> Split:
    images = split.images
    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images, np.uint8)
    return Split(images, np.ascontiguousarray(split.labels, np.int32))


def read_images(path: str | os.PathLike) -> np.ndarray:
    """Reads the images of an .npy file, refusing pickled objects.

    Returns:
      uint8 [N, H, W, C], memory-mapped.

    Raises:
      InputError: if the file is missing, cannot be read or holds something else.
    """
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as an .npy of a plain array"
        ) from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise InputError(f"{path} must hold one uint8 array [N, H, W, C]")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"{path} is uint8 {list(images.shape)}; it must be [N, H, W, C] of 1 or 3 "
            "channels"
        )
    return images
