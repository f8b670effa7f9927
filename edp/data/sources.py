"""Registry of sources: the forms in which a dataset can come.

* digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels. No download.
* synthetic: generated images, to try a configuration.
* tfds: a TFDS dataset in a random-access form (`edp.data.loaders.tfds`).
* folder: image files, `path/split/class/*.png` (`edp.data.loaders.folder`).
* npz: arrays in a file (`edp.data.loaders.npz`).
* cifar: the binary version of CIFAR-10 or CIFAR-100 (`edp.data.loaders.cifar`).
* svhn: SVHN's MATLAB files (`edp.data.loaders.svhn`).
* parquet: Parquet files of encoded images (`edp.data.loaders.parquet`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edp.data.arrays import Source
from edp.data.loaders.cifar import load_cifar
from edp.data.loaders.digits import load_digits
from edp.data.loaders.folder import load_folder
from edp.data.loaders.npz import load_npz
from edp.data.loaders.parquet import load_parquet
from edp.data.loaders.svhn import load_svhn
from edp.data.loaders.synthetic import load_synthetic
from edp.data.loaders.tfds import load_tfds
from edp.errors import InputError


class Entry(NamedTuple):
    """A source: its loader, the settings that it takes, and its default sizes.

    `streams` says that its images are read when they are indexed.
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
    "cifar": Entry(load_cifar, ("path",), {}),
    "svhn": Entry(load_svhn, ("path",), {}),
    "parquet": Entry(load_parquet, ("path", *_RECORDS_SETTINGS), {}, True),
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
