"""Small TFDS sets of digits and photos to stream, and configurations on them."""

import io

import numpy as np
from PIL import Image
from sklearn import datasets

from configs import default
from edp import data

NUM_TRAIN, NUM_TEST = 100, 20


def make_config(data_dir, **settings):
    """Configures two members and one student on digits, 2 epochs of 4 steps."""
    config = default.get_config()
    config.data.update(source="tfds", name="edp_small_digits", data_dir=str(data_dir))
    config.data.update(validation_size=10, train_size=64, crop_padding=1)
    config.data.update(settings)
    config.model.width = 4
    config.teachers.num_members = 2
    for section in (config.teachers, config.distill):
        section.batch_size, section.num_epochs = 16, 2
        section.warmup_epochs = 0.5
    return config


def photos_config(data_dir, **settings):
    """Configures the same on photos: 2 epochs of 2 steps."""
    config = make_config(
        data_dir,
        name="edp_photos",
        image_shape=(16, 12, 3),
        num_classes=3,
        validation_size=4,
        train_size=None,
        stream=True,
        resize="random_crop",
        **settings,
    )
    config.teachers.batch_size = config.distill.batch_size = 8
    return config


def jpeg(rng, label):
    """Encodes a photo of random size whose colour depends on its class."""
    width, height = rng.integers(40, 91, size=2)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[..., label] += 190
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95)
    file.seek(0)
    return file


def prepare(directory):
    """Prepares a TFDS data directory with digits and photos of any size."""
    import tensorflow_datasets as tfds

    class EdpSmallDigits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        IMAGE = tfds.features.Image(shape=(8, 8, 1))
        NUM_CLASSES = 10

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=self.NUM_CLASSES)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": self.IMAGE, "label": label}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(0, NUM_TRAIN),
                "test": self._generate_examples(NUM_TRAIN, NUM_TRAIN + NUM_TEST),
            }

        def _generate_examples(self, start, stop):
            digits = datasets.load_digits()
            for i in range(start, stop):
                image = (15 * digits.images[i][..., None]).astype(np.uint8)
                yield i, {"image": image, "label": digits.target[i]}

    class EdpPhotos(EdpSmallDigits):
        IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        NUM_CLASSES = 3

        def _generate_examples(self, start, stop):
            rng = np.random.default_rng(start)
            for i in range((stop - start) // 5 + 4):
                yield i, {"image": jpeg(rng, i % 3), "label": i % 3}

    for config in (make_config(directory), photos_config(directory)):
        data.create_dataset(config.data, seed=0)
