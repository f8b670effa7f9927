"""CIFAR-10 and CIFAR-100 in their binary version.

cifar-10-binary.tar.gz unpacks to data_batch_1.bin ... data_batch_5.bin, test_batch.bin
and batches.meta.txt; cifar-100-binary.tar.gz to train.bin, test.bin,
fine_label_names.txt and coarse_label_names.txt. An image is one or two label bytes and
3 x 32 x 32 pixels (www.cs.toronto.edu/~kriz/cifar.html).
"""

import os
import pathlib

import numpy as np

from edp.data.arrays import Source, Split
from edp.data.loaders.location import existing_directory
from edp.errors import InputError

_PIXELS = 3 * 32 * 32
_PICKLES = ("data_batch_1", "test_batch", "train", "test", "meta", "batches.meta")
_TEN = [f"data_batch_{i}.bin" for i in range(1, 6)]


def load_cifar(*, path: str | os.PathLike | None) -> Source:
    """Reads the binary version of CIFAR-10 or CIFAR-100 (fine labels).

    Raises:
      InputError: if files are missing or damaged, or are the version for Python,
        which consists of pickles.
    """
    path = existing_directory(path, "cifar")
    if (path / _TEN[0]).is_file():
        train, test, label_bytes = _TEN, ["test_batch.bin"], 1
        names = _names(path / "batches.meta.txt", 10)
    elif (path / "train.bin").is_file():
        train, test, label_bytes = ["train.bin"], ["test.bin"], 2
        names = _names(path / "fine_label_names.txt", 100)
    else:
        pickles = [name for name in _PICKLES if (path / name).is_file()]
        why = "it has neither data_batch_1.bin nor train.bin"
        if pickles:
            why = (
                f"it is the version for Python, whose pickles ({', '.join(pickles)}) "
                "could run code when they are read"
            )
        raise InputError(
            f"data.path is {path}; {why}. Accepted: the binary version "
            "(cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, unpacked); or "
            "data.source='tfds'"
        )
    return Source(
        origin=str(path),
        train=_read(path, train, label_bytes),
        validation=None,
        test=_read(path, test, label_bytes),
        class_names=names,
    )


def _read(path: pathlib.Path, files: list[str], label_bytes: int) -> Split:
    """Reads records; the last label byte is the (fine) label."""
    parts = []
    for name in files:
        try:
            content = np.fromfile(path / name, np.uint8)
        except OSError as error:
            raise InputError(f"{path / name} cannot be read: {error}") from error
        if content.size % (label_bytes + _PIXELS):
            raise InputError(
                f"{path / name} has {content.size} bytes; it must be a multiple of "
                f"{label_bytes + _PIXELS}, the bytes of an image"
            )
        parts.append(content.reshape(-1, label_bytes + _PIXELS))
    records = np.concatenate(parts)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(images, records[:, label_bytes - 1].astype(np.int32))


def _names(path: pathlib.Path, number: int) -> tuple[str, ...] | None:
    """Returns the class names, one in each line; None without the file."""
    if not path.is_file():
        return None
    names = tuple(path.read_text("utf-8").split())
    if len(names) != number:
        raise InputError(f"{path} has {len(names)} names; it must have {number}")
    return names
