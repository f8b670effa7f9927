"""Tests of the array sources: digits, synthetic classes, .npz files."""

import pathlib

import chex
import numpy as np
import pytest
from small_data import (
    check_form,
    create,
    make_config,
    numbered,
    numbers,
    refused,
    with_path,
    write_npz,
)


def test_digits_has_its_default_sizes_and_disjoint_splits():
    from sklearn import datasets

    dataset = create(make_config())
    check_form(dataset)
    assert [len(split.labels) for split in dataset[:3]] == [400, 200, 1000]
    assert dataset.class_names == tuple("0123456789") and dataset.num_classes == 10
    digits = datasets.load_digits()
    known = {
        image.astype(int).tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert len(known) == 1797
    seen = set()
    for split in dataset[:3]:
        original = np.rint(split.images[..., 0] * (16 / 255)).astype(int)
        keys = [image.tobytes() for image in original]
        assert [known[key] for key in keys] == split.labels.tolist()
        assert not seen & set(keys)
        seen |= set(keys)
    assert len(seen) == 1600
    assert dataset.train.images.max() == 255 and dataset.train.images.min() == 0


def test_digits_test_split_is_the_same_for_every_seed_and_the_rest_is_not():
    first, again = create(make_config()), create(make_config())
    other = create(make_config(), seed=1)
    chex.assert_trees_all_equal(first[:3], again[:3])
    chex.assert_trees_all_equal(first.test, other.test)
    assert not np.array_equal(first.train.images, other.train.images)
    assert not np.array_equal(first.validation.images, other.validation.images)


def test_digits_takes_other_sizes_and_names_the_largest():
    dataset = create(make_config(train_size=1, validation_size=1, test_size=1757))
    assert [len(split.labels) for split in dataset[:3]] == [1, 1, 1757]
    refused(make_config(test_size=1796), "data.test_size is 1796", "1 to 1795")
    refused(make_config(validation_size=797), "data.validation_size is 797", "796")
    refused(make_config(train_size=598), "data.train_size is 598", "1 to 597")
    for bad in (0, -3, 2.5, "7", True):
        refused(make_config(train_size=bad), f"data.train_size is {bad!r}", "integer")


def test_synthetic_classes_are_balanced_the_same_every_time_and_can_be_told_apart():
    config = make_config(source="synthetic", image_shape=(6, 5, 3), num_classes=4)
    dataset = create(config)
    check_form(dataset)
    assert [len(split.labels) for split in dataset[:3]] == [200, 100, 100]
    assert np.bincount(dataset.test.labels).tolist() == [25] * 4
    chex.assert_trees_all_equal(create(config)[:3], dataset[:3])
    train, test = (np.float64(split.images) for split in (dataset.train, dataset.test))
    assert not np.array_equal(train[:100], test)
    means = np.stack([train[dataset.train.labels == k].mean(0) for k in range(4)])
    distances = np.square(test[:, None] - means).sum((2, 3, 4))
    assert (distances.argmin(1) == dataset.test.labels).mean() > 0.95


def test_npz_end_to_end(npz):
    dataset = create(npz)
    check_form(dataset)
    assert dataset.class_names == ("0", "1", "2")
    assert numbers(dataset.test) == list(range(100, 109))
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == [*range(30)]
    for split in dataset[:3]:
        expected = np.asarray(numbers(split)) % 100 % 3
        # 100 is not a multiple of 3, but the labels start anew in the test split.
        np.testing.assert_array_equal(split.labels, expected)


def test_npz_greyscale_without_channel_axis_own_validation_and_names(tmp_path):
    images, labels = numbered(7, start=50)
    config = write_npz(
        tmp_path / "set.npz",
        train_images=numbered(30)[0][..., 0],
        validation_images=images,
        validation_labels=labels,
        class_names=np.array(["ant", "bee", "cat"]),
    )
    config.validation_size = None
    dataset = create(config)
    check_form(dataset)
    assert dataset.class_names == ("ant", "bee", "cat")
    assert numbers(dataset.train) == list(range(30))
    assert numbers(dataset.validation) == list(range(50, 57))
    config.validation_size = 3
    config.train_size = 12
    dataset = create(config)
    assert np.bincount(dataset.validation.labels).tolist() == [1, 1, 1]
    assert set(numbers(dataset.validation)) < set(range(50, 57))
    assert np.bincount(dataset.train.labels).tolist() == [4, 4, 4]
    config.validation_size = 8
    refused(config, "data.validation_size is 8", "1 to 7")


def test_npz_under_the_names_of_medmnist_and_keras(npz, tmp_path, capsys):
    arrays = dict(np.load(npz.path))
    images, labels = numbered(7, start=50)
    medmnist = {name: x if x.ndim > 1 else x[:, None] for name, x in arrays.items()}
    medmnist |= {"val_images": images[..., 0], "val_labels": labels[:, None]}
    np.savez(tmp_path / "medmnist.npz", **medmnist)
    config = with_path(npz, tmp_path / "medmnist.npz")
    config.validation_size = None
    dataset = create(config)
    check_form(dataset)
    assert numbers(dataset.validation) == list(range(50, 57))
    np.testing.assert_array_equal(dataset.validation.labels, labels)
    np.testing.assert_array_equal(dataset.train.labels, arrays["train_labels"])
    assert capsys.readouterr().err == ""

    keras = {f"x_{part}": arrays[f"{part}_images"] for part in ("train", "test")}
    keras |= {f"y_{part}": arrays[f"{part}_labels"] for part in ("train", "test")}
    np.savez(tmp_path / "keras.npz", **keras, weights=np.ones(3), a=np.ones(1))
    config = with_path(npz, tmp_path / "keras.npz")
    chex.assert_trees_all_equal(create(config)[:3], create(npz)[:3])
    assert "keras.npz: arrays not read: a, weights" in capsys.readouterr().err

    np.savez(tmp_path / "both.npz", **keras, **arrays)
    refused(
        with_path(npz, tmp_path / "both.npz"), "two names", "train_images and x_train"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_labels": None}, ["no array test_labels", "train_images"]),
        ({"validation_labels": np.zeros(2, int)}, ["no array validation_images"]),
        (
            {"train_images": np.zeros((30, 4, 5, 1), np.float32)},
            ["train_images is float32 [30, 4, 5, 1]", "uint8 [N, H, W, C]"],
        ),
        (
            {"test_images": np.zeros((9, 20), np.uint8)},
            ["test_images is uint8 [9, 20]", "[N, H, W]"],
        ),
        ({"train_labels": np.zeros(30)}, ["train_labels is float64", "integers [30]"]),
        (
            {"train_labels": np.zeros(29, int)},
            ["train_labels is int64 [29]", "integers [30]"],
        ),
        (
            {"test_labels": np.zeros((9, 2), int)},
            ["test_labels is int64 [9, 2]", "integers [9] or [9, 1]"],
        ),
        ({"class_names": np.arange(3)}, ["class_names is int64 [3]", "strings"]),
        ({"class_names": np.array(["a", "b"])}, ["data.num_classes is 3", "has 2"]),
        ({"class_names": np.array([["a"]])}, ["class_names is <U1 [1, 1]"]),
        ({"test_labels": np.arange(9)}, ["data.num_classes is 3", "has 9 classes"]),
        (
            {"test_labels": np.arange(9) % 3 - 1},
            ["label -1 of test example 0", "0 to 2"],
        ),
        (
            {"class_names": np.array([*"abc"]), "test_labels": np.full(9, 3)},
            ["label 3 of test example 0", "data.num_classes is 3", "0 to 2"],
        ),
        (
            {
                "test_images": np.zeros((0, 4, 5, 1), np.uint8),
                "test_labels": np.zeros(0, int),
            },
            ["the test split has no examples"],
        ),
        (
            {"test_images": np.zeros((9, 5, 4, 1), np.uint8)},
            ["data.image_shape is (4, 5, 1)", "test images", "(5, 4, 1)"],
        ),
        ({"class_names": np.array(["a", None])}, ["set.npz", "plain arrays"]),
    ],
)
def test_npz_refuses_arrays_that_are_not_what_they_should_be(tmp_path, changes, words):
    refused(write_npz(tmp_path / "set.npz", **changes), "set.npz", *words)


def test_npz_refuses_files_that_are_not_npz(npz, tmp_path):
    whole = pathlib.Path(npz.path).read_bytes()
    contents = {
        "text.npz": b"not a zip file",
        "empty.npz": b"",
        "cut.npz": whole[: len(whole) // 2],
        "flipped.npz": whole[:300] + bytes([whole[300] ^ 255]) + whole[301:],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in [*contents, "array.npy"]:
        refused(with_path(npz, tmp_path / name), name, "plain arrays")
    refused(with_path(npz, tmp_path / "absent.npz"), "absent.npz", "not exist")
    refused(with_path(npz, tmp_path), tmp_path, "plain arrays")
    refused(with_path(npz, None), "data.path is None", "'npz'")
