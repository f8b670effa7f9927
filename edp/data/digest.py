"""Digests of datasets, to key what is computed from them."""

import hashlib

import numpy as np

from edp.data.arrays import Dataset, Split
from edp.data.image_reader import Records


def dataset_digest(dataset: Dataset) -> dict[str, str]:
    """Returns the digests of the three splits and of the class names.

    They depend on the content of a dataset, not on its place: a copy of the files in
    another directory or on another file system has the same digests.
    """
    names = hashlib.sha256("\0".join(dataset.class_names).encode()).hexdigest()
    return {
        "train": split_digest(dataset.train),
        "validation": split_digest(dataset.validation),
        "test": split_digest(dataset.test),
        "class_names": names,
    }


def split_digest(split: Split) -> str:
    """Returns the SHA-256 of the labels and the images of a split, in order.

    Images in memory count with their pixels, images on disk with the fingerprint that
    `Encoded.fingerprint` gives (of files: path below the root, size and content), the
    image shape and `resize`; so no image is decoded. The two digests of a dataset that
    can be read in both ways differ.
    """
    digest = hashlib.sha256(np.ascontiguousarray(split.labels, "<i4"))
    images = split.images
    digest.update(repr(tuple(map(int, images.shape))).encode())
    if isinstance(images, Records):
        digest.update(images.resize.encode())
        for index in images.indices:
            one = hashlib.sha256(images.encoded.fingerprint(int(index)))
            digest.update(one.digest())
    else:
        digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()
