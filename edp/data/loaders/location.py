"""Checks of `data.path` and of arrays that loaders share."""

import os
import pathlib

import numpy as np

from edp.data.arrays import Split
from edp.errors import InputError


def existing(path: str | os.PathLike | None, source: str) -> pathlib.Path:
    """Returns `data.path`, which must exist, with `~` expanded."""
    if not path:
        raise InputError(f"data.path is {path!r}; the source {source!r} needs one")
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise InputError(f"data.path is {path}, which does not exist")
    return path


def existing_directory(path: str | os.PathLike | None, source: str) -> pathlib.Path:
    """Returns `data.path`, which must be a directory."""
    path = existing(path, source)
    if not path.is_dir():
        raise InputError(
            f"data.path is {path}; for data.source={source!r} it must be a directory"
        )
    return path


def entries(path: pathlib.Path) -> list[pathlib.Path]:
    """Lists a directory, sorted, without names that begin with a dot."""
    try:
        return sorted(e for e in path.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def checked_split(
    origin: str | os.PathLike,
    images: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, str],
) -> Split:
    """Returns a split of arrays.

    Args:
      origin: file of the arrays, for messages.
      images: uint8 [N, H, W, C], or [N, H, W] for one channel.
      labels: integers [N] or [N, 1].
      names: of the two arrays, for messages.

    Raises:
      InputError: if dtypes or shapes differ from these.
    """
    images_name, labels_name = names
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(
            f"{origin}: {images_name} is {describe(images)}; it must be uint8 "
            "[N, H, W, C] or [N, H, W]"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise InputError(
            f"{origin}: {labels_name} is {describe(labels)}; it must be integers "
            f"[{len(images)}] or [{len(images)}, 1], one class for each of "
            f"{images_name}"
        )
    return Split(images if images.ndim == 4 else images[..., None], labels)


def describe(array: np.ndarray) -> str:
    """Returns the dtype and shape of an array, for messages."""
    return f"{array.dtype} {list(array.shape)}"
