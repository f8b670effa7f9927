"""Small synthetic datasets, and checks that every dataset passes."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from edp import data
from edp.errors import InputError


def make_config(**settings):
    """Returns a `data` section with every key."""
    config = {
        "source": "digits",
        "name": None,
        "data_dir": None,
        "path": None,
        "train_size": None,
        "validation_size": None,
        "test_size": None,
        "validation": "stratified",
        "image_shape": (8, 8, 1),
        "num_classes": 10,
        "train_split": "train",
        "test_split": "test",
    }
    return ConfigDict({**config, **settings})


def create(config, seed=0, split_path=None):
    return data.create_dataset(config, seed=seed, split_path=split_path)


def refused(config, *words, seed=0, split_path=None):
    """Checks that a configuration raises an InputError of one line with all `words`."""
    with pytest.raises(InputError) as caught:
        create(config, seed, split_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def check_form(dataset):
    for split in dataset[:3]:
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert split.images.flags.c_contiguous and split.labels.flags.c_contiguous
        assert split.images.shape[:1] == split.labels.shape
        assert split.images.ndim == 4


def numbered(num_examples, num_classes=3, start=0, shape=(4, 5, 1)):
    """Returns constant images of value `start` + index, and labels 0, 1, 2, 0, ..."""
    values = np.arange(start, start + num_examples, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (num_examples, *shape))
    return np.array(images), np.arange(num_examples) % num_classes


def numbers(split):
    """Returns the values of constant images: the inverse of `numbered`."""
    return split.images[:, 0, 0, 0].tolist()


def write_npz(path, **changes):
    """Writes an .npz of 30 training and 9 test examples; None removes an array."""
    train_images, train_labels = numbered(30)
    test_images, test_labels = numbered(9, start=100)
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
        **changes,
    }
    np.savez(path, **{key: x for key, x in arrays.items() if x is not None})
    return make_config(
        source="npz",
        path=str(path),
        image_shape=(4, 5, 1),
        num_classes=3,
        validation_size=6,
    )


def with_path(config, path):
    return ConfigDict({**config, "path": path and str(path)})
