"""Tests of the digests of datasets."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from small_data import create, make_config, numbered, with_path, write_npz

from edp.data import dataset_digest
from edp.errors import InputError

PARTS = {"train", "validation", "test", "class_names"}


def changed(config, before, **options):
    now = dataset_digest(create(config, **options))
    return {part for part in PARTS if now[part] != before[part]}


def test_digests_of_arrays_are_of_labels_pixels_and_names(npz, tmp_path):
    before = dataset_digest(create(npz))
    assert before.keys() == PARTS and len(set(before.values())) == 4
    assert all(len(digest) == 64 for digest in before.values())
    other = tmp_path / "elsewhere" / "other name.npz"
    other.parent.mkdir()
    shutil.copy(npz.path, other)
    assert changed(with_path(npz, other), before) == set()
    assert changed(with_path(npz, f"{other.parent}/./{other.name}"), before) == set()

    labels = numbered(9)[1]
    labels[0] = 2
    write_npz(other, test_labels=labels)
    assert changed(with_path(npz, other), before) == {"test"}
    images = numbered(9, start=100)[0]
    images[3, 2, 1, 0] += 1
    write_npz(other, test_images=images)
    assert changed(with_path(npz, other), before) == {"test"}
    write_npz(other, class_names=np.array(["a", "b", "c"]))
    assert changed(with_path(npz, other), before) == {"class_names"}
    assert changed(npz, before, seed=1) == {"train", "validation"}


@pytest.fixture
def folder(tmp_path):
    """Two classes of 4 training and 2 test images, larger ones among them."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 4), ("test", 2)):
        for name in "ab":
            for i in range(number):
                path = tmp_path / "set" / part / name / f"{i}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(256, size=(200, 200, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)  # 120 kB
    config = make_config(source="folder", path=str(tmp_path / "set"), stream=True)
    config.update(image_shape=(200, 200, 3), num_classes=2, validation_size=2)
    return config


def test_digests_of_files_are_of_their_content_and_not_of_their_place(folder, tmp_path):
    before = dataset_digest(create(folder))
    assert changed(with_path(folder, f"{folder.path}/"), before) == set()
    copy = tmp_path / "mounted" / "copy"
    shutil.copytree(folder.path, copy)
    file = copy / "test/a/1.bmp"
    os.utime(file, (1, 1))
    config = with_path(folder, copy)
    assert changed(config, before) == set()
    content = file.read_bytes()
    for place in (60, len(content) - 1):  # at either end
        file.write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        assert changed(config, before) == {"test"}
    file.write_bytes(content)
    dataset = create(config)
    file.rename(copy / "test/b/1b.bmp")
    with pytest.raises(InputError, match=r"cannot read the image .*test/a/1\.bmp"):
        dataset_digest(dataset)
    assert changed(config, before) == {"test"}


def test_digest_of_streamed_images_does_not_decode_them(folder, monkeypatch):
    dataset = create(folder)
    monkeypatch.setattr(Image, "open", None)
    assert dataset_digest(dataset)["test"]
