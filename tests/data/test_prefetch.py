"""Tests of streamed datasets: reading, cropping and batches."""

import jax
import numpy as np
import pytest
from PIL import Image
from streamed_sets import make_config, photos_config

from edp import data
from edp.errors import InputError

RNG = np.random.default_rng(0)


def test_records_read_what_an_array_would_give(tfds_dir):
    config = make_config(tfds_dir).data
    arrays = data.create_dataset(config, seed=0)
    config.stream = True
    streamed = data.create_dataset(config, seed=0)
    for of_arrays, of_records in zip(arrays[:3], streamed[:3], strict=True):
        np.testing.assert_array_equal(of_arrays.labels, of_records.labels)
        images, lazy = of_arrays.images, of_records.images
        assert isinstance(lazy, data.Records) and isinstance(images, np.ndarray)
        assert lazy.shape == images.shape and len(lazy) == len(images)
        wanted = RNG.permutation(len(images))[:7]
        for indices in (slice(None), slice(3, 8), slice(0, 0), wanted):
            np.testing.assert_array_equal(lazy[indices], images[indices])
        selected = of_records.select(wanted).images
        np.testing.assert_array_equal(selected[1:3], images[wanted][1:3])


def test_photos_are_cropped_and_resized(tfds_dir):
    dataset = data.create_dataset(photos_config(tfds_dir).data, seed=0)
    images = dataset.train.images
    first = images[:]
    assert first.shape == (20, 16, 12, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(
        first.mean(axis=(1, 2)).argmax(-1), dataset.train.labels
    )
    np.testing.assert_array_equal(images[np.array([4, 2])], first[[4, 2]])
    seeds = [(1, i) for i in range(20)]
    cropped = images.read(slice(None), seeds)
    np.testing.assert_array_equal(images.read(slice(3, 5), seeds[3:5]), cropped[3:5])
    assert (cropped != first).any(axis=(1, 2, 3)).all()
    other = images.read(slice(None), [(2, i) for i in range(20)])
    assert (cropped != other).any(axis=(1, 2, 3)).all()


def test_resizing_keeps_where_things_are(tmp_path):
    """The central crop of a horizontal ramp is its middle."""
    ramp = np.tile(np.arange(64, dtype=np.uint8), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                file = tmp_path / split / name / f"{i}.png"
                file.write_bytes((tmp_path / "ramp.png").read_bytes())
    config = make_config(
        tmp_path,
        source="folder",
        path=str(tmp_path),
        num_classes=2,
        image_shape=(7, 7, 1),
        validation_size=2,
        train_size=None,
        stream=True,
        resize="random_crop",
    )
    images = data.create_dataset(config.data, seed=0).test.images[:]
    # 28 columns from the 18th on, 4 in each pixel: their middles are 19.5 + 4 i.
    expected = np.broadcast_to(19.5 + 4 * np.arange(7), (4, 7, 7))
    np.testing.assert_allclose(images[..., 0], expected, atol=0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"source": "digits", "stream": True},
            ["data.stream is True", "'tfds', 'folder'"],
        ),
        ({"resize": "random_crop"}, ["'random_crop'", "data.stream is False"]),
        (
            {"resize": "crop", "stream": True},
            ["data.resize is 'crop'", "'none', 'random_crop'"],
        ),
        (
            {"name": "edp_photos", "image_shape": (9, 9, 3), "num_classes": 3}
            | {"stream": True, "validation_size": 4, "train_size": None},
            ["'edp_photos', split 'train': example", "asks for 9x9"],
        ),
    ],
)
def test_sets_that_cannot_be_streamed_are_refused(tfds_dir, settings, words):
    with pytest.raises(InputError) as caught:
        data.create_dataset(make_config(tfds_dir, **settings).data, seed=0)
    for word in words:
        assert word in str(caught.value)


def test_labels_of_a_streamed_set_are_read_once(tfds_dir, tmp_path, monkeypatch):
    from edp.data.loaders import tfds

    config = make_config(tfds_dir, stream=True).data
    path = tmp_path / "split.npz"
    first = data.create_dataset(config, seed=0, split_path=path)
    monkeypatch.setattr(tfds._Examples, "read_labels", None)
    again = data.create_dataset(config, seed=0, split_path=path)
    for split, same in zip(first[:3], again[:3], strict=True):
        np.testing.assert_array_equal(split.labels, same.labels)
        np.testing.assert_array_equal(split.images.indices, same.images.indices)


@pytest.mark.parametrize("num_members", [None, 2])
def test_processes_read_the_parts_of_one_batch(tfds_dir, num_members):
    split = data.create_dataset(photos_config(tfds_dir).data, seed=0).train
    key_data = np.asarray(jax.random.key_data(jax.random.key(3)))
    order = data.EpochOrder(key_data, 20, 8, num_members)
    rows = (slice(0, num_members),) if num_members else ()

    def read(first, start, stop, last=5):
        reader = data.StepReader(split, order, (*rows, slice(start, stop)), (7,))
        return list(data.read_steps(reader, first, last, num_workers=0))

    whole = read(0, 0, 8)
    assert len(whole) == 5
    for step, parts in enumerate(zip(whole, read(0, 0, 3), read(0, 3, 8), strict=True)):
        for batch, own, others in zip(*parts, strict=True):
            both = np.concatenate([own, others], axis=len(rows))
            np.testing.assert_array_equal(batch, both)
        indices = np.asarray(order(step // 2))[step % 2]
        np.testing.assert_array_equal(parts[0][1], split.labels[indices])
    # From any step on, the same; and in the next epoch other crops of an image.
    for (images, _), (same, _) in zip(whole[3:], read(3, 0, 8), strict=True):
        np.testing.assert_array_equal(images, same)
    flat = [images.reshape(-1, 16 * 12 * 3) for images, _ in whole]
    assert len(np.unique(np.concatenate(flat), axis=0)) == 5 * 8 * (num_members or 1)
