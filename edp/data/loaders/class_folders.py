"""One directory for each class: what all datasets of image files share."""

import pathlib
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

from edp.data.arrays import Split
from edp.data.image_files import Files, images_below, warn_left_out
from edp.data.image_preparation import SUFFIXES
from edp.data.image_reader import Records
from edp.data.loaders.location import entries
from edp.errors import InputError
from edp.runtime import multihost


def class_directories(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the sorted names of the directories of classes in `path`.

    Names are in Unicode's composed form (NFC), whatever the file system stores, so
    that classes have the same labels on all systems.

    Raises:
      InputError: if there are none, or two differ only in case or Unicode form.
    """
    names: dict[str, str] = {}
    for directory in _directories(path):
        other = names.setdefault(_spelling(directory.name), directory.name)
        if other != directory.name:
            raise InputError(
                f"{path} has the classes {other!r} and {directory.name!r}, which "
                "differ in spelling only; keep one of them"
            )
    return tuple(sorted(map(_composed, names.values())))


def labelled_directories(
    path: pathlib.Path, classes: Sequence[str]
) -> list[tuple[pathlib.Path, int]]:
    """Returns the directories of classes in `path`, each with its label.

    Args:
      path: directory of the split.
      classes: from `class_directories`, in the order of their labels.

    Raises:
      InputError: if a directory is none of `classes`, or two are the same one.
    """
    labels = {name: label for label, name in enumerate(classes)}
    known = {_spelling(name): name for name in classes}
    found: dict[int, pathlib.Path] = {}
    for directory in _directories(path):
        label = labels.get(_composed(directory.name))
        if label is None:
            close = known.get(_spelling(directory.name))
            raise InputError(
                f"{directory} is a class that the training split does not have; it has "
                + (f"{close!r}, spelt otherwise" if close else _listed(classes))
            )
        if label in found:
            raise InputError(
                f"{path} has the class {classes[label]!r} twice, in two Unicode forms; "
                "keep one of them"
            )
        found[label] = directory
    return [(directory, label) for label, directory in found.items()]


def folder_split(
    root: pathlib.Path,
    path: pathlib.Path,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    resize: str,
    beside: Collection[str] = (),
) -> Split:
    """Finds the images of one split.

    Args:
      root: of the dataset.
      path: directory of the split, with one directory for each class.
      classes: names of the directories in the order of their labels.
      image_shape: (H, W, C).
      resize: see `Records`.
      beside: suffixes of files that may lie beside the images, without a warning.

    Raises:
      InputError: if a directory is none of `classes`, has no images, or cannot be
        read.
    """
    paths, labels, left_out = [], [], {}
    directories = labelled_directories(path, classes)
    for directory, label in directories:
        try:
            found = images_below(directory)
        except OSError as error:
            raise InputError(f"{directory} cannot be read: {error}") from error
        if not found.paths:
            raise InputError(
                f"{directory} has no images; accepted are {', '.join(SUFFIXES)}"
            )
        paths += found.paths
        labels += [label] * len(found.paths)
        for suffix, number in found.left_out.items():
            left_out[suffix] = left_out.get(suffix, 0) + number
    for entry in (entry for entry in entries(path) if not entry.is_dir()):
        suffix = entry.suffix.lower() or entry.name
        left_out[suffix] = left_out.get(suffix, 0) + 1
    warn_left_out(path, {s: n for s, n in left_out.items() if s not in beside})
    present = {classes[label] for _, label in directories}
    missing = [name for name in classes if name not in present]
    if missing:
        multihost.warn(f"{path} has no images of the classes {_listed(missing)}")
    return files_split(root, paths, labels, image_shape, resize)


def files_split(
    root: pathlib.Path,
    paths: Sequence[pathlib.Path],
    labels: Sequence[int],
    image_shape: tuple[int, int, int],
    resize: str,
) -> Split:
    """Returns a split of image files below `root`, which are read when indexed."""
    records = Records(
        Files(list(paths), root), np.arange(len(paths)), image_shape, resize
    )
    return Split(records, np.asarray(labels, np.int32))


def _directories(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        raise InputError(f"{path} is not a directory; it must hold one for each class")
    found = [entry for entry in entries(path) if entry.is_dir()]
    if not found:
        raise InputError(f"{path} has no directories; it must hold one for each class")
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _spelling(name: str) -> str:
    return _composed(name).strip().casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", ... ({len(names)})" if len(names) > 20 else "")
