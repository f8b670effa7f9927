"""Tiny ImageNet and ImageNet (ILSVRC 2012) as their archives unpack.

    Tiny ImageNet                          ImageNet
    train/<wnid>/images/*.JPEG             train/<wnid>/*.JPEG
    val/images/*.JPEG                      val/*.JPEG  (or validation)
    val/val_annotations.txt                a list of the validation labels, see `_LISTS`
    words.txt                              words.txt, LOC_synset_mapping.txt or none

The validation images, which have published labels, are the test split; the test images
have none and are not read. Kaggle's ILSVRC/Data/CLS-LOC is found below `data.path`.
"""

import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edp.data.arrays import Source
from edp.data.image_files import images_below, warn_left_out
from edp.data.image_preparation import SUFFIXES
from edp.data.loaders.class_folders import (
    class_directories,
    files_split,
    folder_split,
)
from edp.data.loaders.location import entries
from edp.errors import InputError
from edp.runtime import multihost

_KAGGLE = "ILSVRC/Data/CLS-LOC"
# File -> form of its lines: `<file> <label>` in any order, or one label for each image
# in the order of the file names. A label is a wnid or its index among the sorted wnids.
_LISTS = {
    "val_annotations.txt": "pairs",
    "LOC_val_solution.csv": "pairs",
    "val.txt": "pairs",
    "imagenet_2012_validation_synset_labels.txt": "labels",
}
_NAMES = ("words.txt", "LOC_synset_mapping.txt", "synset_words.txt")
_BESIDE = (".txt", ".csv")  # boxes and lists, which lie beside the images
_WNID = re.compile(r"n\d{8}")


class Layout(NamedTuple):
    """Directories of the training and validation images, and where lists may be."""

    train: pathlib.Path
    images: pathlib.Path
    lists: Sequence[pathlib.Path]


def find_layout(path: pathlib.Path) -> Layout | None:
    """Returns the layout of `path`; None if the dataset is neither of the two.

    Recognised by a directory `train` of wnids beside a directory of validation images
    without one directory for each class.
    """
    root = path / _KAGGLE if (path / _KAGGLE).is_dir() else path
    train = root / "train"
    if not train.is_dir() or not any(_WNID.fullmatch(e.name) for e in entries(train)):
        return None
    for name in ("val", "validation"):
        flat = root / name
        if not flat.is_dir():
            continue
        images = flat / "images" if (flat / "images").is_dir() else flat
        if any(e.suffix.lower() in SUFFIXES for e in entries(images)):
            return Layout(train, images, (path, flat))
    return None


def load_imagenet(
    path: pathlib.Path,
    layout: Layout,
    image_shape: tuple[int, int, int],
    resize: str,
) -> Source:
    """Finds the images of Tiny ImageNet or ImageNet; reads none.

    Raises:
      InputError: if there is no list of the validation labels, or it does not match
        the images.
    """
    wnids = class_directories(layout.train)
    found = images_below(layout.images)
    list_path, labels = _read_labels(layout, [p.name for p in found.paths], wnids)
    left_out = {s: n for s, n in found.left_out.items() if s not in _BESIDE}
    warn_left_out(layout.images, left_out)
    if multihost.is_first():
        print(
            f"{path}: ImageNet's layout; {len(found.paths)} validation images with the "
            f"labels of {list_path} are the test split",
            file=sys.stderr,
        )
    return Source(
        origin=str(path),
        train=folder_split(path, layout.train, wnids, image_shape, resize, _BESIDE),
        validation=None,
        test=files_split(path, found.paths, labels, image_shape, resize),
        class_names=_class_names(layout, wnids),
        class_directories=wnids,
    )


def _read_labels(
    layout: Layout, names: Sequence[str], wnids: Sequence[str]
) -> tuple[pathlib.Path, list[int]]:
    """Returns the list's path and the label of each image in `names`."""
    candidates = [place / name for name in _LISTS for place in layout.lists]
    there = [candidate for candidate in candidates if candidate.is_file()]
    if not there:
        raise InputError(
            f"{layout.images} has images without class directories, and there is no "
            f"list of their labels in {' or '.join(map(str, layout.lists))}; accepted: "
            f"{', '.join(_LISTS)}"
        )
    path = there[0]
    lines = [line for line in _lines(path) if not line.startswith("ImageId")]
    if _LISTS[path.name] == "labels":
        if len(lines) != len(names):
            raise InputError(
                f"{path} has {len(lines)} labels for {len(names)} images in "
                f"{layout.images}"
            )
        by_name = dict(zip(names, lines, strict=True))
    else:
        pairs = [re.split(r"[\s,]+", line)[:2] for line in lines]
        if any(len(pair) < 2 for pair in pairs):
            raise InputError(f"{path} must have an image and a label in each line")
        by_name = {_stem(name): label for name, label in pairs}
        by_name = {n: by_name[_stem(n)] for n in names if _stem(n) in by_name}
    without = [name for name in names if name not in by_name]
    if without:
        raise InputError(
            f"{path} has no label for {len(without)} images of {layout.images}, such "
            f"as {without[0]}"
        )
    known = {wnid: i for i, wnid in enumerate(wnids)}
    known |= {str(i): i for i in range(len(wnids))}
    unknown = sorted({label for label in by_name.values() if label not in known})
    if unknown:
        raise InputError(
            f"{path} has the label {unknown[0]!r}; it must be one of the "
            f"{len(wnids)} directories of {layout.train}, or an index from 0"
        )
    return path, [known[by_name[name]] for name in names]


def _class_names(layout: Layout, wnids: Sequence[str]) -> tuple[str, ...]:
    """Returns the first word of each wnid; with the wnid where two share it."""
    words: Mapping[str, str] = {}
    for path in (place / name for place in layout.lists for name in _NAMES):
        if path.is_file():
            pairs = (line.split(None, 1) for line in _lines(path))
            words = {p[0]: p[1].split(",")[0].strip() for p in pairs if len(p) == 2}
            break
    names = [words.get(wnid, wnid) for wnid in wnids]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _stem(name: str) -> str:
    return pathlib.PurePath(name).stem


def _lines(path: pathlib.Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip()]
