"""Where data comes from: one loader per source, found by name.

* digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels. No download.
* synthetic: made-up images that can be told apart, to try a configuration with.
* tfds: a TFDS set in a random-access form (`edp.data.tfds_source`).
* folder: `path/split/class/*.png` (or .jpg, .jpeg), with the splits `train`,
  `test` and optionally `validation` or `val`.
* npz: a file with `train_images`, `train_labels`, `test_images`, `test_labels`,
  and optionally `validation_images`, `validation_labels` and `class_names`.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edp.data import splits
from edp.data.arrays import Source, Split
from edp.data.image_reader import Records
from edp.data.tfds_source import load_tfds
from edp.errors import InputError
from edp.runtime import storage

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def load_digits(*, test_size: int) -> Source:
    """Reads scikit-learn's digits; values 0 to 16 become 0 to 255.

    They come without a test split, so one is drawn here: stratified, and the same
    in every run.

    Raises:
      InputError: if `test_size` leaves nothing to train and validate with.
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
    """All of scikit-learn's digits, and the names of their classes."""
    from sklearn import datasets  # Slow to import, and only needed here.

    digits = datasets.load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    return Split(images, digits.target.astype(np.int32)), names


def load_synthetic(
    *, image_shape: tuple[int, int, int], num_classes: int, test_size: int
) -> Source:
    """Makes images up: a random pattern for each class, under as much noise.

    The same in every run; ten times as many for training as for the test, and of
    each at least one of every class.
    """
    rng = np.random.default_rng(0)
    patterns = rng.integers(64, 192, (num_classes, *image_shape))

    def make(size: int) -> Split:
        labels = np.arange(max(size, num_classes), dtype=np.int32) % num_classes
        noise = rng.integers(-64, 64, (len(labels), *image_shape))
        return Split((patterns[labels] + noise).astype(np.uint8), labels)

    splits.check_size("test_size", test_size)
    return Source("synthetic", make(10 * test_size), None, make(test_size), None)


def load_npz(*, path: str | os.PathLike | None) -> Source:
    """Reads an .npz file of arrays.

    Images are uint8 [N, H, W, C], or [N, H, W] for one channel; labels are
    integers [N]; `class_names` are strings [K].

    Raises:
      InputError: if the file cannot be read, or an array is missing or is not
        what it should be.
    """
    path = _existing(path, "npz")
    arrays = storage.read_npz(path)
    optional = [name for name in arrays if name.startswith("validation_")]
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(
            f"{path}: class_names is {_describe(names)}; it must be strings [K]"
        )
    return Source(
        origin=str(path),
        train=npz_split(path, arrays, "train"),
        validation=npz_split(path, arrays, "validation") if optional else None,
        test=npz_split(path, arrays, "test"),
        class_names=None if names is None else tuple(names.tolist()),
    )


def npz_split(path: pathlib.Path, arrays: Mapping[str, np.ndarray], part: str) -> Split:
    """The split `part` of the arrays of the file `path`; InputError if it is none."""
    images_name, labels_name = f"{part}_images", f"{part}_labels"
    for name in (images_name, labels_name):
        if name not in arrays:
            raise InputError(
                f"{path} has no array {name}; it has {', '.join(sorted(arrays))}"
            )
    images, labels = arrays[images_name], arrays[labels_name]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{path}: {images_name} is {_describe(images)}; it must be uint8 "
            "[N, H, W, C] or [N, H, W]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: {labels_name} is {_describe(labels)}; it must be integers "
            f"[{len(images)}], one for each of {images_name}"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def load_folder(
    *, path: str | os.PathLike | None, image_shape: tuple[int, int, int], resize: str
) -> Source:
    """Finds a tree of image files, one directory per split and class.

    The classes are the sorted directory names of the training split, and files
    are read in sorted order. Images are converted to greyscale or colour,
    whichever `image_shape` asks for, when they are read.

    Raises:
      InputError: if a directory is missing or empty, or a class is unknown to the
        training split.
    """
    path = _existing(path, "folder")
    own = [name for name in ("validation", "val") if (path / name).is_dir()]
    if len(own) > 1:
        raise InputError(f"{path} has both validation and val; keep one of them")
    classes = tuple(directory.name for directory in _directories(path / "train"))

    def split(name: str) -> Split:
        return _folder_split(path / name, classes, image_shape, resize)

    return Source(
        origin=str(path),
        train=split("train"),
        validation=split(own[0]) if own else None,
        test=split("test"),
        class_names=classes,
    )


def _directories(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        raise InputError(f"{path} is not a directory; it must hold one for each class")
    found = [entry for entry in _entries(path) if entry.is_dir()]
    found = [entry for entry in found if not entry.name.startswith(".")]
    if not found:
        raise InputError(f"{path} has no directories; it must hold one for each class")
    return sorted(found)


def _entries(path: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(path.iterdir())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _folder_split(
    path: pathlib.Path,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    resize: str,
) -> Split:
    files, labels = [], []
    for directory in _directories(path):
        if directory.name not in classes:
            raise InputError(
                f"{directory} is a class that the training split does not have; it "
                f"has {', '.join(classes)}"
            )
        found = [
            entry
            for entry in sorted(_entries(directory))
            if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
        ]
        if not found:
            raise InputError(
                f"{directory} has no images; accepted are {', '.join(IMAGE_SUFFIXES)}"
            )
        files += found
        labels += [classes.index(directory.name)] * len(found)
    records = Records(Files(files), np.arange(len(files)), image_shape, resize)
    return Split(records, np.asarray(labels, np.int32))


class Files(NamedTuple):
    """Image files as what `Records` reads."""

    paths: list[pathlib.Path]

    def fetch(self, indices: Sequence[int]) -> list[pathlib.Path]:
        return [self.paths[index] for index in indices]

    def describe(self, index: int) -> str:
        return str(self.paths[index])


def _existing(path: str | os.PathLike | None, source: str) -> pathlib.Path:
    if not path:
        raise InputError(f"data.path is {path!r}; the source {source!r} needs one")
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise InputError(f"data.path is {path}, which does not exist")
    return path


class Entry(NamedTuple):
    """A source: its loader, the settings that it takes, and its default sizes.

    One that `streams` gives images that are read when they are asked for.
    """

    load: Callable[..., Source]
    reads: tuple[str, ...]
    default_sizes: Mapping[str, int]
    streams: bool = False


_SYNTHETIC_SIZES = {"train_size": 200, "validation_size": 100, "test_size": 100}
_DIGITS_SIZES = {"train_size": 400, "validation_size": 200, "test_size": 1000}
_TFDS_SETTINGS = ("name", "data_dir", "train_split", "test_split")
_RECORDS_SETTINGS = ("image_shape", "resize")

SOURCES = {
    "digits": Entry(load_digits, ("test_size",), _DIGITS_SIZES),
    "synthetic": Entry(
        load_synthetic, ("image_shape", "num_classes", "test_size"), _SYNTHETIC_SIZES
    ),
    "tfds": Entry(
        load_tfds, (*_TFDS_SETTINGS, *_RECORDS_SETTINGS, "known_labels"), {}, True
    ),
    "folder": Entry(load_folder, ("path", *_RECORDS_SETTINGS), {}, True),
    "npz": Entry(load_npz, ("path",), {}),
}


def get_source(name: Any) -> Entry:
    """Returns the source called `name`.

    Raises:
      InputError: if there is none.
    """
    if name not in SOURCES:
        raise InputError(
            f"data.source is {name!r}; it must be one of "
            f"{', '.join(repr(known) for known in SOURCES)}"
        )
    return SOURCES[name]
