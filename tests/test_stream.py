"""Streamed sets: images read and resized as they are needed, and runs on them."""

import io
import math
import sys

import jax
import numpy as np
import pytest
from launching import Commands
from PIL import Image
from sklearn import datasets

from configs import default
from edp import checkpoint, data, sharding, training
from edp import experiment as experiments
from edp.data import records
from edp.errors import InputError
from launch import distill, train_teachers

RNG = np.random.default_rng(0)


def jpeg(label):
    """A photo of a size of its own, in a colour that tells its class."""
    width, height = RNG.integers(40, 91, size=2)
    pixels = RNG.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[..., label] += 190
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A TFDS data directory with digits, and photos of any size."""
    import tensorflow_datasets as tfds

    class EdpDigits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        SHAPE, CLASSES = (8, 8, 1), 10

        def _info(self):
            image = tfds.features.Image(shape=self.SHAPE, encoding_format=self.FORMAT)
            label = tfds.features.ClassLabel(num_classes=self.CLASSES)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
            )

        FORMAT = "png"

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(0, 100),
                "test": self._generate_examples(100, 120),
            }

        def _generate_examples(self, start, stop):
            digits = datasets.load_digits()
            for i in range(start, stop):
                image = (digits.images[i][..., None] * 15).astype(np.uint8)
                yield i, {"image": image, "label": digits.target[i]}

    class EdpPhotos(EdpDigits):
        SHAPE, CLASSES, FORMAT = (None, None, 3), 3, "jpeg"

        def _generate_examples(self, start, stop):
            for i in range(start, start + (stop - start) * 3 // 10):
                yield i, {"image": jpeg(i % 3), "label": i % 3}

    directory = tmp_path_factory.mktemp("tfds")
    for name, shape, classes in (("digits", (8, 8, 1), 10), ("photos", (8, 8, 3), 3)):
        config = digits_config(directory, name=f"edp_{name}")
        config.data.image_shape, config.data.num_classes = shape, classes
        config.data.stream, config.data.validation_size = True, 5
        config.data.resize = "none" if name == "digits" else "random_crop"
        data.create_dataset(config.data, seed=0)
    return directory
