"""Tests of published corrupted images, as small copies."""

import numpy as np
import pytest
from PIL import Image

from edp import data
from edp.data.corruption_files import open_corrupted
from edp.errors import InputError

NAMES = ("a", "b", "c")


def open_all(path, image_shape=(4, 4, 3)):
    return open_corrupted(path, image_shape=image_shape, class_names=NAMES)


@pytest.fixture
def cifar_c(tmp_path):
    """Six images of two corruptions; pixels are 40 severity + 10 corruption + i."""
    values = np.arange(6) + 40 * np.arange(5)[:, None]
    for i, name in enumerate(["fog", "snow"]):
        images = np.zeros((30, 4, 4, 3), np.uint8)
        images += np.uint8(values.reshape(-1, 1, 1, 1) + 10 * i)
        np.save(tmp_path / f"{name}.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(6) % 3, 5))
    return tmp_path


def test_cifar_10_c(cifar_c):
    sets = open_all(cifar_c)
    assert sets.names == ("fog", "snow")
    for i, name in enumerate(sets.names):
        for severity in range(1, 6):
            images, labels = sets.split(name, severity, None)
            assert labels.tolist() == [0, 1, 2, 0, 1, 2]
            first = 40 * (severity - 1) + 10 * i
            assert images[:, 3, 2, 1].tolist() == list(range(first, first + 6))
    few = sets.split("fog", 2, 3)
    assert few.labels.tolist() == [0, 1, 2]  # stratified
    again = sets.split("snow", 4, 3)
    assert (again.images[:, 0, 0, 0] - few.images[:, 0, 0, 0]).tolist() == [90] * 3
    assert len(sets.split("fog", 1, 1000).labels) == 6
    # One corruption is a set out of distribution, too.
    foreign = data.open_foreign(
        str(cifar_c / "fog.npy"), size=100, image_shape=(2, 2, 1)
    )
    assert foreign[:].shape == (30, 2, 2, 1)
    np.save(cifar_c / "labels.npy", np.arange(6) % 3)
    assert open_all(cifar_c).split("fog", 5, None).labels.tolist() == [0, 1, 2] * 2


def test_faults_of_cifar_10_c_are_told(cifar_c):
    def refused(words):
        with pytest.raises(InputError, match=words):
            open_all(cifar_c)

    labels = np.load(cifar_c / "labels.npy")
    with pytest.raises(InputError, match=r"\(H, W, C\) = \(8, 8, 3\)"):
        open_all(cifar_c, (8, 8, 3))
    np.save(cifar_c / "labels.npy", labels[::-1])
    open_all(cifar_c)  # 2, 1, 0, ... five times, too
    np.save(cifar_c / "labels.npy", np.sort(labels))
    refused("30 labels; .* it must be 6, or these five times")
    np.save(cifar_c / "labels.npy", labels + 1)
    refused("labels 1 to 3; data.num_classes is 3")
    np.save(cifar_c / "fog.npy", np.zeros((29, 4, 4, 3), np.uint8))
    refused(r"fog.npy is \[29, 4, 4, 3\]")
    np.save(cifar_c / "fog.npy", np.zeros((30, 4, 4, 3)))
    refused("must hold one uint8 array")
    np.save(cifar_c / "fog.npy", np.array([None]), allow_pickle=True)
    refused("fog.npy cannot be read")
    for name in ("fog", "snow"):
        (cifar_c / f"{name}.npy").unlink()
    refused("no <corruption>.npy")
    (cifar_c / "labels.npy").unlink()
    refused("<corruption>/<severity>/<class>/")


@pytest.mark.parametrize("group", ["", "blur"])
def test_imagenet_c(group, tmp_path):
    for severity in range(1, 6):
        for label, name in enumerate(NAMES):
            path = tmp_path / group / "fog" / str(severity) / name / "x.JPEG"
            path.parent.mkdir(parents=True)
            colour = (40 * severity + label,) * 3
            Image.new("RGB", (9, 7), colour).save(path, "PNG")
    sets = open_all(tmp_path)
    assert sets.names == ("fog",)
    images, labels = sets.split("fog", 3, None)
    assert labels.tolist() == [0, 1, 2]
    assert images[:][:, 0, 0, 0].tolist() == [120, 121, 122]
    assert images.shape == (3, 4, 4, 3)
    (tmp_path / group / "fog/3/c").rename(tmp_path / group / "fog/3/d")
    with pytest.raises(InputError, match=r"d is a class that .* does not have"):
        sets.split("fog", 3, None)
    with pytest.raises(InputError, match="is not a directory"):
        open_all(tmp_path / "none")
