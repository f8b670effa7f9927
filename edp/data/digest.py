"""Digests of datasets, to key what is computed from them."""

import concurrent.futures
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from edp.data.arrays import Dataset, Split
from edp.data.image_reader import Records
from edp.errors import InputError


def dataset_digest(
    dataset: Dataset, parts: Sequence[str] = ("train", "validation", "test")
) -> dict[str, str]:
    """Returns the digests of splits and of the class names.

    They depend on the content of a dataset, not on its place: a copy of the files in
    another directory or on another file system has the same digests.

    Args:
      dataset: the dataset.
      parts: names of the splits.
    """
    names = "\0".join(dataset.class_names).encode(errors="surrogateescape")
    return {
        **{part: split_digest(getattr(dataset, part)) for part in parts},
        **(_calibration_digest(dataset) if "validation" in parts else {}),
        "class_names": hashlib.sha256(names).hexdigest(),
    }


def _calibration_digest(dataset: Dataset) -> dict[str, str]:
    calibration = dataset.calibration
    return {} if calibration is None else {"calibration": split_digest(calibration)}


def split_digest(split: Split) -> str:
    """Returns the SHA-256 of the labels and the images of a split, in order.

    Images in memory count with their pixels, images on disk with the fingerprint that
    `Encoded.fingerprint` gives (of files: path below the root, size and content), the
    image shape and `resize`; so no image is decoded. Streamed and in memory, the same
    images have different digests.

    Raises:
      InputError: if an image file cannot be read.
    """
    digest = hashlib.sha256(np.ascontiguousarray(split.labels, "<i4"))
    images = split.images
    digest.update(repr(tuple(map(int, images.shape))).encode())
    if isinstance(images, Records):
        digest.update(images.resize.encode())
        with concurrent.futures.ThreadPoolExecutor(images.threads) as pool:
            for one in pool.map(functools.partial(_digest_one, images), images.indices):
                digest.update(one)
    else:
        digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()


def _digest_one(images: Records, index: int) -> bytes:
    encoded = images.encoded
    try:
        return hashlib.sha256(encoded.fingerprint(int(index))).digest()
    except Exception as error:
        name = encoded.describe(int(index))
        raise InputError(f"cannot read the image {name}: {error}") from error
