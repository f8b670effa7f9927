"""Tests of out-of-distribution datasets, resized to the shape of a run's images."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from edp import data
from edp.errors import InputError


def read(name, image_shape, size=10, **options):
    images = data.open_foreign(
        str(name), size=size, image_shape=image_shape, **options
    )[:]
    assert images.dtype == np.uint8
    assert images.shape[1:] == image_shape and len(images) <= size
    return images


def save_npz(path, images):
    np.savez(path, test_images=images, test_labels=np.zeros(len(images), int))
    return path


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (32, 32, 3), (6, 10, 3)])
@pytest.mark.parametrize("name", ["digits", "noise"])
def test_built_in_sets_take_any_shape_and_are_the_same_every_time(name, image_shape):
    images = read(name, image_shape)
    assert len(images) == 10
    np.testing.assert_array_equal(images, read(name, image_shape))
    assert images.min() < 20 and images.max() > 235
    if image_shape[-1] == 3:  # digits are grey, and noise is of all colours
        is_grey = (images == images[..., :1]).all()
        assert is_grey == (name == "digits")


def test_digits_are_those_of_scikit_learn():
    every = datasets.load_digits().images
    found = read("digits", (8, 8, 1), size=2000)[..., 0]
    assert len(found) == len(every) == 1797  # all, where there are no more
    np.testing.assert_allclose(found, every * 255 / 16, atol=0.5)
    few = data.open_foreign("digits", size=5, image_shape=(8, 8, 1))
    np.testing.assert_array_equal(few[:][..., 0], found[few.indices])
    assert len(set(few.indices)) == 5


def test_noise_is_uniform_and_independent():
    noise = np.float64(read("noise", (16, 16, 3), size=200))
    assert noise.mean() == pytest.approx(127.5, abs=0.5)
    assert noise.std() == pytest.approx(255 / 12**0.5, rel=0.01)
    assert {noise.min(), noise.max()} == {0, 255}
    pixels = noise.reshape(200, -1)
    between = np.corrcoef(pixels[:20])[np.triu_indices(20, 1)]
    assert np.abs(between).max() < 0.2
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_whole_images_are_squeezed_and_change_their_colours(tmp_path):
    colour = np.zeros((3, 8, 4, 3), np.uint8)
    colour[:, :4] = (200, 100, 50)  # the upper half; black below
    grey = read(save_npz(tmp_path / "colour.npz", colour), (2, 2, 1))
    luminance = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    # Of the eight rows, the triangle around the second and third has six, weighted
    # 5, 7, 7, 5 in the upper half and 3, 1 in the lower one.
    np.testing.assert_allclose(grey[:, 0], luminance * 24 / 28, atol=1)
    np.testing.assert_allclose(grey[:, 1], luminance * 4 / 28, atol=1)
    kept = read(tmp_path / "colour.npz", (8, 4, 3))
    np.testing.assert_array_equal(kept, colour)
    flat = np.full((2, 5, 5), 77, np.uint8)
    grown = read(save_npz(tmp_path / "flat.npz", flat), (9, 7, 3))
    np.testing.assert_array_equal(grown, np.full((2, 9, 7, 3), 77))


def test_a_folder_gives_all_images_below_it(tmp_path):
    for i, place in enumerate(["a.png", "b/c.jpeg", "b/d/e.PNG"]):
        path = tmp_path / "photos" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30 - i), (60 * i,) * 3).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("none")
    (tmp_path / "photos" / ".hidden.png").write_text("none")
    images = read(tmp_path / "photos", (4, 4, 1))
    assert sorted(images[:, 0, 0, 0]) == [0, 60, 120]
    assert all(len(np.unique(image)) == 1 for image in images)


def test_a_bad_image_of_a_folder_is_found_as_it_is_opened(tmp_path):
    for i in range(3):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    bad = tmp_path / "2.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cannot read the image .*2\.png"):
        data.open_foreign(str(tmp_path), size=3, image_shape=(8, 8, 1))


def test_a_tfds_set_of_another_shape(tmp_path):
    import tensorflow_datasets as tfds

    class EdpStripes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(6, 6, 3)),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples(0), "test": self._examples()}

        def _generate_examples(self, start):
            for i in range(4):
                image = np.full((6, 6, 3), 10 * i + start, np.uint8)
                yield i, {"image": image, "label": i % 2}

        def _examples(self):
            return self._generate_examples(100)

    images = read("edp_stripes", (8, 8, 1), data_dir=tmp_path)
    assert images[:, 0, 0, 0].tolist() == [100, 110, 120, 130]  # of the test split
    with pytest.raises(InputError, match=r"evaluation\.ood_sets is 'edp_strips'.*TFDS"):
        read("edp_strips", (8, 8, 1), data_dir=tmp_path)


def test_what_is_no_set_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"ood_sets is '.*empty', which has no images"):
        read(tmp_path / "empty", (8, 8, 1))
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        read(tmp_path / "none.npz", (8, 8, 1))
    np.savez(tmp_path / "bare.npz", images=np.zeros((2, 4, 4)))
    with pytest.raises(
        InputError, match=r"no array test_images \(or x_test, y_test\); it has images"
    ):
        read(tmp_path / "bare.npz", (8, 8, 1))
    (tmp_path / "empty" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read the image .*a\.png"):
        read(tmp_path / "empty", (8, 8, 1))
    with pytest.raises(InputError, match="1 or 3 channels"):
        read("noise", (8, 8, 2))


@pytest.mark.parametrize(("downsample", "stream"), [(1, False), (2, False), (1, True)])
def test_the_test_split_keeps_its_full_size(tmp_path, downsample, stream):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(6):
            path = tmp_path / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    config = {"source": "folder", "path": tmp_path, "image_shape": (8, 8, 3)}
    config |= {"num_classes": 2, "validation_size": 2, "test_size": 4}
    config |= {"downsample": downsample, "stream": stream}
    dataset = data.create_dataset(config, seed=0)
    assert (dataset.full_test is dataset.test) == (downsample == 1)
    full = dataset.full_test.images[:]
    assert full.shape == (4, 8, 8, 3)
    np.testing.assert_array_equal(
        data.downsample(full, downsample), dataset.test.images[:]
    )
    np.testing.assert_array_equal(dataset.full_test.labels, dataset.test.labels)
