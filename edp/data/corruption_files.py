"""Corrupted test images as published: CIFAR-10-C, CIFAR-100-C and ImageNet-C.

The files are:

    CIFAR-10-C/<corruption>.npy    uint8 [5 N, H, W, C], severities 1 to 5 in order
    CIFAR-10-C/labels.npy          integers [5 N] or [N]
    ImageNet-C/<corruption>/<severity>/<class>/*.JPEG

(Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261.) ImageNet-C may have the groups
of its archives, such as blur/, above the corruptions.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edp.data import splits
from edp.data.arrays import Split, read_images
from edp.data.corruptions import SEVERITIES
from edp.data.digest import split_digest
from edp.data.image_files import images_below
from edp.data.image_preparation import WHOLE
from edp.data.loaders.class_folders import (
    files_split,
    folder_split,
    labelled_directories,
)
from edp.data.loaders.location import entries
from edp.errors import InputError

_SETTING = "a folder of evaluation.corruptions"


class CorruptedSets(Protocol):
    """Corrupted test sets of one dataset; `names` are those of the corruptions."""

    names: tuple[str, ...]

    def split(self, name: str, severity: int, size: int | None) -> Split:
        """Returns the images of one corruption and severity, 1 to 5, with labels.

        Args:
          name: of the corruption.
          severity: 1 to 5.
          size: of a stratified subset, the same for every corruption of the same
            labels and in every run; None or more than there are: all.
        """


def is_folder(entry: str) -> bool:
    """Returns whether an entry of `evaluation.corruptions` is a folder, by its form.

    A corruption that edp computes has a name of small letters and underscores. A
    folder of such a name is given with a slash, as `./fog`.
    """
    return re.fullmatch("[a-z_]+", entry) is None


def open_all_corrupted(
    entries: Iterable[str],
    *,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
) -> dict[str, CorruptedSets]:
    """Opens the folders among the entries of `evaluation.corruptions`, by their names.

    Raises:
      InputError: as `open_corrupted`, or if two folders have one name.
    """
    opened: dict[str, CorruptedSets] = {}
    for entry in filter(is_folder, entries):
        name = os.path.basename(os.path.abspath(os.path.expanduser(entry)))
        if name in opened:
            raise InputError(
                f"evaluation.corruptions has two folders named {name!r}; their names "
                "must be distinct"
            )
        opened[name] = open_corrupted(
            entry, image_shape=image_shape, class_names=class_names
        )
    return opened


def corrupted_digests(
    opened: Mapping[str, CorruptedSets], size: int | None
) -> dict[str, str]:
    """Returns by set the SHA-256 of the images and labels that `split` returns."""
    digests = {}
    for name, sets in opened.items():
        digest = hashlib.sha256()
        for corruption in sets.names:
            digest.update(corruption.encode(errors="surrogateescape"))
            for severity in SEVERITIES:
                split = sets.split(corruption, severity, size)
                digest.update(split_digest(split).encode())
        digests[name] = digest.hexdigest()
    return digests


def open_corrupted(
    path: str | os.PathLike,
    *,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
) -> CorruptedSets:
    """Opens a folder of published corruptions.

    Args:
      path: folder with the layout of CIFAR-10-C or of ImageNet-C.
      image_shape: (H, W, C) of the images; those of ImageNet-C are resized to it.
      class_names: names by which directories of classes are labelled: the dataset's
        `class_directories`, or else its `class_names`.

    Raises:
      InputError: if the folder has neither layout, shapes, labels or classes do not
        match, or the first image of a severity of ImageNet-C cannot be read.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_dir():
        raise InputError(f"{_SETTING} is {path}, which is not a directory")
    if (path / "labels.npy").is_file():
        return _open_arrays(path, image_shape, len(class_names))
    folders = _corruption_folders(path)
    if not folders:
        raise InputError(
            f"{_SETTING} is {path}; it must have labels.npy and <corruption>.npy, or "
            "<corruption>/<severity>/<class>/ with severities 1 to 5"
        )
    opened = _Folders(tuple(sorted(folders)), path, folders, image_shape, class_names)
    opened.check()
    return opened


class _Arrays(NamedTuple):
    """The layout of CIFAR-10-C."""

    names: tuple[str, ...]
    path: pathlib.Path
    labels: np.ndarray  # [N], the same for each severity

    def split(self, name: str, severity: int, size: int | None) -> Split:
        number = len(self.labels)
        images = read_images(self.path / f"{name}.npy")
        of_severity = images[number * (severity - 1) : number * severity]
        return splits.fixed_part(Split(of_severity, self.labels), size)


def _open_arrays(
    path: pathlib.Path, image_shape: tuple[int, int, int], num_classes: int
) -> _Arrays:
    try:
        labels = np.load(path / "labels.npy", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path / 'labels.npy'} cannot be read: {error}") from error
    files = sorted(f for f in entries(path) if f.suffix == ".npy")
    files = [file for file in files if file.stem != "labels"]
    if not files:
        raise InputError(f"{path} has labels.npy, but no <corruption>.npy")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path / 'labels.npy'} must be integers [5 N] or [N]")
    for file in files:
        shape = read_images(file).shape
        if shape[1:] != image_shape or shape[0] % len(SEVERITIES):
            raise InputError(
                f"{file} is {list(shape)}; it must be [5 N, H, W, C] with (H, W, C) = "
                f"{image_shape}"
            )
        number = shape[0] // len(SEVERITIES)
        tiled = np.tile(labels[:number], len(SEVERITIES))
        if len(labels) != number and not np.array_equal(labels, tiled):
            raise InputError(
                f"{path / 'labels.npy'} has {len(labels)} labels; for {file} it must "
                f"be {number}, or these five times in a row"
            )
    labels = labels[:number].astype(np.int32)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"{path / 'labels.npy'} has labels {labels.min()} to {labels.max()}; "
            f"data.num_classes is {num_classes}"
        )
    return _Arrays(tuple(file.stem for file in files), path, labels)


class _Folders(NamedTuple):
    """The layout of ImageNet-C."""

    names: tuple[str, ...]
    path: pathlib.Path
    folders: dict[str, pathlib.Path]
    image_shape: tuple[int, int, int]
    class_names: Sequence[str]

    def check(self) -> None:
        """Checks the classes of every severity, and reads one image of each."""
        for folder in self.folders.values():
            for severity in SEVERITIES:
                path = folder / str(severity)
                first, label = labelled_directories(path, self.class_names)[0]
                paths = images_below(first).paths[:1]
                if not paths:
                    raise InputError(f"{first} has no images")
                one = files_split(self.path, paths, [label], self.image_shape, WHOLE)
                one.images[:]

    def split(self, name: str, severity: int, size: int | None) -> Split:
        every = folder_split(
            self.path,
            self.folders[name] / str(severity),
            self.class_names,
            self.image_shape,
            WHOLE,
        )
        return splits.fixed_part(every, size)


def _corruption_folders(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns corruption -> folder; in `path`, or one level below in groups."""
    found = {}
    for entry in entries(path):
        inner = entries(entry) if entry.is_dir() else []
        for folder in (entry, *(one for one in inner if one.is_dir())):
            if all((folder / str(severity)).is_dir() for severity in SEVERITIES):
                found[folder.name] = folder
    return found
