"""Tests of splits and of the file that stores them."""

import errno
import os
import pathlib

import chex
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_data import check_form, create, numbered, numbers, refused, write_npz

from edp import data
from edp.data import splits
from edp.runtime import storage


def test_stratified_indices_give_each_class_its_share_exactly():
    labels = np.repeat([0, 1, 2, 5], [50, 30, 17, 3])
    labels = np.random.default_rng(3).permutation(labels)

    def counts(size):
        indices = splits.stratified_indices(np.random.default_rng(0), labels, size)
        assert indices.size == np.unique(indices).size == size
        assert (np.diff(indices) > 0).all()
        return [int((labels[indices] == label).sum()) for label in (0, 1, 2, 5)]

    assert counts(100) == [50, 30, 17, 3]
    assert counts(50) == [25, 15, 9, 1]  # 8.5 and 1.5: the lower label is served.
    assert counts(10) == [5, 3, 2, 0]  # 1.7 and 0.3.
    assert counts(7) == [4, 2, 1, 0]  # 3.5, 2.1, 1.19, 0.21.
    assert counts(0) == [0, 0, 0, 0]
    for size in range(101):
        share = size * np.array([50, 30, 17, 3]) / 100
        assert (np.abs(counts(size) - share) < 1).all()


def test_validation_is_stratified_or_the_last_and_does_not_move(npz):
    dataset = create(npz)
    assert np.bincount(dataset.validation.labels).tolist() == [2, 2, 2]
    assert np.bincount(dataset.train.labels).tolist() == [8, 8, 8]
    chex.assert_trees_all_equal(create(npz)[:3], dataset[:3])
    other = create(npz, seed=1)
    assert numbers(other.validation) != numbers(dataset.validation)
    assert numbers(other.test) == numbers(dataset.test)

    npz.train_size, npz.test_size = 9, 6
    small = create(npz)
    assert numbers(small.validation) == numbers(dataset.validation)
    assert set(numbers(small.train)) < set(numbers(dataset.train))
    assert np.bincount(small.train.labels).tolist() == [3, 3, 3]
    assert np.bincount(small.test.labels).tolist() == [2, 2, 2]
    assert numbers(create(npz, seed=1).test) == numbers(small.test)
    assert numbers(create(npz, seed=1).train) != numbers(small.train)

    npz.validation, npz.train_size = "last", None
    dataset = create(npz, seed=7)
    assert numbers(dataset.validation) == [*range(24, 30)]
    assert numbers(dataset.train) == [*range(24)]


def test_settings_that_do_not_fit_are_refused(npz):
    def refused_with(*words, seed=0, **settings):
        refused(ConfigDict({**npz, **settings}), *words, seed=seed)

    refused_with("data.source is 'mnist'", "'digits', 'synthetic'", source="mnist")
    refused_with("data.source is None", source=None)
    refused_with("data.validation is 'first'", "'last'", validation="first")
    refused_with("data.validation_size is None", "1 to 29", validation_size=None)
    refused_with("data.validation_size is 30", "1 to 29", validation_size=30)
    refused_with("data.train_size is 25", "1 to 24", train_size=25)
    refused_with("data.test_size is 10", "1 to 9", test_size=10)
    refused_with("data.num_classes is None", "integer", num_classes=None)
    refused_with("data.num_classes is 4", "has 3 classes", num_classes=4)
    for shape in (None, (4, 5), (4, 5, 0), (4, 5, 1, 1), "451", 4):
        refused_with("data.image_shape is", "(height, width", image_shape=shape)
    refused_with("data.image_shape is (5, 5, 1)", "(4, 5, 1)", image_shape=[5, 5, 1])
    for seed in (-1, 0.5, None, True):
        refused_with(f"seed is {seed!r}", "0 or more", seed=seed)
    one = numbered(1)
    path = pathlib.Path(npz.path)
    arrays = {"train_images": one[0], "train_labels": one[1]}
    config = write_npz(path, **arrays, test_labels=np.zeros(9, int))
    config.num_classes = 1
    refused(config, "one training example")


def test_downsampled_images_are_the_rounded_means_of_their_squares(tmp_path):
    images = np.zeros((3, 4, 2, 1), np.uint8)
    images[0, ..., 0] = [[1, 2], [3, 4], [10, 20], [30, 41]]  # means 2.5 and 25.25
    images[1] = 255
    labels = np.arange(3) % 2
    arrays = {f"{part}_images": images for part in ("train", "test")}
    arrays |= {f"{part}_labels": labels for part in ("train", "test")}
    config = write_npz(tmp_path / "set.npz", **arrays)
    config.update(image_shape=(4, 2, 1), num_classes=2, validation_size=1)
    config.downsample = 2
    test = create(config).test
    np.testing.assert_array_equal(test.images[..., 0, 0], [[2, 25], [255, 255], [0, 0]])
    check_form(create(config))
    config.downsample = 3
    refused(config, "data.downsample is 3", "(4, 2, 1)")
    config.downsample = 0
    refused(config, "data.downsample is 0", "at least 1")


def test_keys_left_out_have_defaults(npz):
    keys = ("source", "path", "image_shape", "num_classes", "validation_size")
    short = {key: npz[key] for key in keys}
    chex.assert_trees_all_equal(create(short)[:3], create(npz)[:3])


def test_a_stored_split_is_used_again(npz, tmp_path):
    path = tmp_path / "run" / "split.npz"
    first = create(npz, split_path=path)
    assert os.listdir(path.parent) == ["split.npz"]
    chex.assert_trees_all_equal(first[:3], create(npz)[:3])
    content = path.read_bytes()
    chex.assert_trees_all_equal(create(npz, split_path=path)[:3], first[:3])
    assert path.read_bytes() == content

    stored = dict(np.load(path, allow_pickle=False))
    assert stored["train_indices"].tolist() == numbers(first.train)
    assert stored["validation_indices"].tolist() == numbers(first.validation)
    assert stored["seed"] == 0 and stored["validation"] == "stratified"
    # What is stored counts, not what would be drawn: swap two examples.
    stored["train_indices"][0], stored["validation_indices"][0] = (
        stored["validation_indices"][0],
        stored["train_indices"][0],
    )
    np.savez(path, **stored)
    swapped = create(npz, split_path=str(path))
    assert numbers(swapped.train) == stored["train_indices"].tolist()
    assert numbers(swapped.validation) == stored["validation_indices"].tolist()


def test_calibration_is_held_out_of_validation_and_stored(npz, tmp_path):
    before = create(npz)
    assert before.calibration is None
    npz.calibration_size = 3
    dataset = create(npz, split_path=tmp_path / "split.npz")
    assert numbers(dataset.train) == numbers(before.train)
    held_out = numbers(dataset.validation) + numbers(dataset.calibration)
    assert sorted(held_out) == numbers(before.validation)
    assert np.bincount(dataset.calibration.labels).tolist() == [1, 1, 1]
    with np.load(tmp_path / "split.npz") as stored:
        assert stored["calibration_indices"].tolist() == numbers(dataset.calibration)
        arrays = dict(stored)
    again = create(npz, split_path=tmp_path / "split.npz")
    assert numbers(again.calibration) == numbers(dataset.calibration)
    assert numbers(create(npz, seed=1).calibration) != numbers(dataset.calibration)
    refused({**npz, "calibration_size": 6}, "data.calibration_size is 6", "1 to 5")
    # An image that also chooses the epoch would break the guarantee.
    arrays["calibration_indices"][0] = arrays["validation_indices"][0]
    np.savez(tmp_path / "split.npz", **arrays)
    refused(npz, "do not fit", split_path=tmp_path / "split.npz")


def test_a_stored_split_of_before_calibration_sets_is_read(npz, tmp_path):
    path = tmp_path / "split.npz"
    first = create(npz, split_path=path)
    arrays = dict(np.load(path))
    del arrays["calibration_size"], arrays["calibration_indices"]
    np.savez(path, **arrays)
    again = create(npz, split_path=path)
    assert numbers(again.validation) == numbers(first.validation)
    assert again.calibration is None


def test_a_stored_split_of_other_settings_or_data_is_refused(npz, tmp_path):
    path = tmp_path / "split.npz"
    create(npz, split_path=path)
    content = path.read_bytes()

    def refused_with(*words, seed=0, **settings):
        config = ConfigDict({**npz, **settings})
        refused(config, path, *words, seed=seed, split_path=path)

    refused_with("has seed 0", "is 3 now", seed=3)
    refused_with("has train_size 24", "is 12 now", train_size=12)
    refused_with("has validation_size 6", "is 5 now", validation_size=5, train_size=24)
    refused_with("has validation 'stratified'", "'last' now", validation="last")
    refused_with("has calibration_size 0", "is 2 now", calibration_size=2)
    images, labels = numbered(31)
    other = tmp_path / "other.npz"
    write_npz(other, train_images=images, train_labels=labels)
    refused_with("has num_examples 30", "31", path=str(other), train_size=24)
    write_npz(other, train_labels=np.arange(30)[::-1] % 3)
    refused_with("labels_sha256", path=str(other))
    images, labels = numbered(6)
    write_npz(other, validation_images=images, validation_labels=labels)
    refused_with("has validation 'stratified'", path=str(other), train_size=24)
    assert path.read_bytes() == content

    stored = dict(np.load(path, allow_pickle=False))
    held_out = stored["validation_indices"]
    rest = np.setdiff1d(np.arange(30), held_out)
    broken = [
        stored["train_indices"][:-1],
        stored["train_indices"].astype(float),
        np.full(24, 3),
        np.arange(24) + 7,
        np.arange(24) - 1,
        np.concatenate([held_out[:1], rest[1:]]),
    ]
    for indices in broken:
        np.savez(path, **{**stored, "train_indices": indices})
        refused_with("do not fit")
    np.savez(path, **{k: x for k, x in stored.items() if k != "validation_indices"})
    refused_with("do not fit")
    np.savez(path, **{k: x for k, x in stored.items() if k != "seed"})
    refused_with("has seed None")
    path.write_bytes(content[:100])
    refused_with("plain arrays")


def test_a_failed_write_leaves_nothing_behind(npz, tmp_path, monkeypatch):
    path = tmp_path / "run" / "split.npz"

    def full_disk(file):
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full_disk)
        with pytest.raises(OSError, match="no space left"):
            create(npz, split_path=path)
    assert not list(path.parent.iterdir())
    create(npz, split_path=path)


def test_a_part_has_every_class_of_data_that_are_ordered_by_class():
    images, _ = numbered(40)
    split = data.Split(images, np.repeat([0, 1, 2, 3], 10))
    part = data.fixed_part(split, 8)
    assert part.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_array_equal(np.asarray(numbers(part)) // 10, part.labels)
    chex.assert_trees_all_equal(part, data.fixed_part(split, 8))
    for size in (None, 40, 1000):
        chex.assert_trees_all_equal(data.fixed_part(split, size), split)


def test_the_one_image_of_a_class_may_be_held_out_with_a_warning(npz, capsys):
    labels = np.repeat([0, 1, 2], [15, 14, 1])
    config = write_npz(npz.path, train_labels=labels)
    config.update(validation="last", validation_size=1)
    assert create(config).validation.labels.tolist() == [2]
    warned = capsys.readouterr().err
    assert "the train split (29 images) has none of the classes with labels 2" in warned
    config.validation_size = 15
    refused(config, "data.validation='last'", "labels 1;")
