"""Image files in a directory for each split and class.

    path/train/<class>/**/*.png    path/test/...    path/validation/... (or val)

Files that are laid out as ImageNet or Tiny ImageNet unpack are recognised and read by
`edp.data.loaders.imagenet`. Accepted are the suffixes of `image_preparation.SUFFIXES`.
"""

import os

from edp.data.arrays import Source, Split
from edp.data.loaders.class_folders import class_directories, folder_split
from edp.data.loaders.imagenet import find_layout, load_imagenet
from edp.data.loaders.location import entries, existing
from edp.errors import InputError
from edp.runtime import multihost

_SPLITS = ("train", "test", "validation", "val")


def load_folder(
    *, path: str | os.PathLike | None, image_shape: tuple[int, int, int], resize: str
) -> Source:
    """Finds the image files of a dataset; reads none.

    The classes are the sorted directory names of the training split. Files are in
    sorted order, in subdirectories of a class too; links are followed. Warns about
    files and directories that are left out, and about classes without test images.

    Raises:
      InputError: if a directory is missing or empty, a class is not in the training
        split, or two classes have the same name up to case and Unicode form.
    """
    path = existing(path, "folder")
    layout = find_layout(path) if path.is_dir() else None
    if layout is not None:
        return load_imagenet(path, layout, image_shape, resize)
    own = [name for name in ("validation", "val") if (path / name).is_dir()]
    if len(own) > 1:
        raise InputError(f"{path} has both validation and val; keep one of them")
    classes = class_directories(path / "train")
    if own and not (path / "test").is_dir():
        raise InputError(
            f"{path / 'test'} is not a directory; {path / own[0]} is used for "
            "validation only. Rename it to test to test on it"
        )

    def split(name: str) -> Split:
        return folder_split(path, path / name, classes, image_shape, resize)

    source = Source(
        origin=str(path),
        train=split("train"),
        validation=split(own[0]) if own else None,
        test=split("test"),
        class_names=classes,
    )
    others = [e.name for e in entries(path) if e.is_dir() and e.name not in _SPLITS]
    if others:
        multihost.warn(f"{path}: directories not read: {', '.join(others)}")
    return source
