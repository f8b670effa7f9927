"""What a data set is here, and the checks every set passes."""

from typing import NamedTuple

import numpy as np

from edp.data.image_reader import Records
from edp.errors import InputError


class Split(NamedTuple):
    """Examples: images uint8 [N, H, W, C] and labels int32 [N].

    Images lie in memory or are read when they are indexed; labels lie in memory.
    """

    images: np.ndarray | Records
    labels: np.ndarray

    def select(self, indices: np.ndarray) -> "Split":
        """Returns the examples at `indices` [n], in that order; reads no images."""
        if isinstance(self.images, Records):
            return Split(self.images.select(indices), self.labels[indices])
        return Split(self.images[indices], self.labels[indices])

    def in_memory(self) -> "Split":
        """The same examples, all images read."""
        return self._replace(images=np.asarray(self.images[:]))

    def downsample(self, factor: int) -> "Split":
        """`downsample` of the images, which lie in memory."""
        return self._replace(images=downsample(self.images, factor))


def downsample(images: np.ndarray, factor: int) -> np.ndarray:
    """The mean over squares of `factor` x `factor` pixels.

    Args:
      images: uint8 [N, H, W, C]; H and W divide by `factor`.
      factor: 1 leaves them as they are.

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
    """The three splits of a data set, and the names of its K classes.

    `full_test` is `test` before it was downsampled: its images have the set's own
    `image_shape`, and where they are on disk they are read when they are indexed.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    full_test: Split

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


class Source(NamedTuple):
    """What a source holds, before training examples are held out.

    `origin` names it in messages. `validation` is None where the source has no
    validation examples of its own, `class_names` where it does not name classes.
    """

    origin: str
    train: Split
    validation: Split | None
    test: Split
    class_names: tuple[str, ...] | None


def check_source(
    source: Source, *, image_shape: tuple[int, int, int], num_classes: int
) -> Source:
    """Checks a source against the configuration.

    Returns:
      The source with int32 labels, its arrays C-contiguous, and with class
      names ('0', '1', ... where it has none).

    Raises:
      InputError: if a split is empty, two classes have one name, or the images' shape
        or the number of classes is not what the configuration says.
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
            f"{source.origin}: two classes are called {twice[0]!r}; names must be "
            "distinct"
        )
    parts = {name: _contiguous(split) for name, split in parts.items()}
    return source._replace(class_names=names, **parts)


def _contiguous(split: Split) -> Split:
    images = split.images
    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images, np.uint8)
    return Split(images, np.ascontiguousarray(split.labels, np.int32))
