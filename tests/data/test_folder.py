"""Tests of the source of image files in a directory for each class."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from small_data import check_form, create, make_config, numbers, refused, with_path

from edp import data
from edp.data import image_reader


def write_image(path, value, size=(5, 4), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Writes two classes with 6 training and 2 test images each, out of order."""
    root = tmp_path / "images"
    for label, name in enumerate(["bird", "ape"]):
        for index in reversed(range(6)):
            write_image(root / "train" / name / f"{index}.png", 10 * label + index)
        write_image(root / "test" / name / "a.PNG", 100 + label)
        write_image(root / "test" / name / "b.jpeg", 200 + label, quality=100)
    (root / "train" / "ape" / "notes.txt").write_text("not an image")
    (root / "train" / ".cache").mkdir()
    return make_config(
        source="folder",
        path=str(root),
        image_shape=(4, 5, 1),
        num_classes=2,
        validation_size=4,
        validation="last",
    )


def test_validation_does_not_take_a_whole_class(folder, capsys):
    folder.validation_size = 6
    refused(folder, "data.validation='last'", "data.validation_size=6", "labels 1;")
    folder.validation_size = 5
    assert create(folder).train.labels.tolist() == [0] * 6 + [1]
    assert "the validation split (5 images) has none of the classes with labels 0" in (
        capsys.readouterr().err
    )
    folder.train_size, folder.validation = 1, "stratified"
    create(folder)
    assert "the train split (1 images) has none" in capsys.readouterr().err


def test_faults_of_class_names_are_told(folder, capsys):
    root = pathlib.Path(folder.path)
    (root / "test/bird").rename(root / "test/Bird")
    refused(folder, root / "test/Bird", "'bird', spelt otherwise")
    (root / "test/Bird/a.PNG").unlink()
    (root / "test/Bird/b.jpeg").unlink()
    (root / "test/Bird").rmdir()
    (root / "extra").mkdir()
    (root / "test/notes.txt").write_text("not an image")
    capsys.readouterr()
    assert create(folder).test.labels.tolist() == [0, 0]
    warned = capsys.readouterr().err
    assert "test has no images of the classes bird" in warned
    assert "directories not read: extra" in warned
    assert "test: 1 files are left out (1 .txt)" in warned
    assert "train: 1 files are left out (1 .txt)" in warned
    write_image(root / "train/Ape/a.png", 0)
    refused(folder, root / "train", "'Ape'", "'ape'", "spelling")


def test_classes_have_the_same_labels_in_both_unicode_forms(folder, tmp_path):
    """File systems store an accent composed or apart, which sort differently."""
    root = pathlib.Path(folder.path)
    composed, apart = "\u00e9lan", "e\u0301lan"  # before and after "eu" by code point
    datasets = []
    for train, test in ((composed, composed), (apart, apart), (apart, composed)):
        for part, name in (("train", train), ("test", test)):
            others = ("bird", "eu", ".cache")
            (ape,) = (d for d in (root / part).iterdir() if d.name not in others)
            ape.rename(root / part / name)
            if (root / part / "bird").exists():
                (root / part / "bird").rename(root / part / "eu")
        datasets.append(create(folder))
    for dataset in datasets:
        assert dataset.class_names == ("eu", composed)
        assert dataset.test.labels.tolist() == [0, 0, 1, 1]
        assert numbers(dataset.test) == [100, 200, 101, 201]
    write_image(root / "test" / apart / "a.png", 0)
    refused(folder, root / "test", "twice, in two Unicode forms")


def test_names_that_are_not_utf_8_have_digests(folder):
    for part in ("train", "test"):
        path = pathlib.Path(folder.path) / part
        (path / "ape").rename(path / os.fsdecode(b"caf\xe9"))
    dataset = create(folder)
    assert dataset.class_names == ("bird", "caf\udce9")
    assert len(data.dataset_digest(dataset)["class_names"]) == 64


def test_folders_within_a_class_and_linked_ones_are_read(folder, tmp_path):
    root = pathlib.Path(folder.path)
    write_image(root / "train/ape/more/x.bmp", 99)
    (root / "train/bird").rename(tmp_path / "elsewhere")
    (root / "train/bird").symlink_to(tmp_path / "elsewhere")
    assert numbers(create(folder).train) == [10, 11, 12, 13, 14, 15, 99, 0, 1]


def test_folder_end_to_end(folder):
    dataset = create(folder)
    check_form(dataset)
    assert dataset.class_names == ("ape", "bird")
    assert numbers(dataset.train) == [10, 11, 12, 13, 14, 15, 0, 1]
    assert dataset.train.labels.tolist() == [0] * 6 + [1] * 2
    assert numbers(dataset.validation) == [2, 3, 4, 5]
    assert numbers(dataset.test) == [101, 201, 100, 200]


@pytest.mark.parametrize("name", ["validation", "val"])
def test_folder_reads_its_own_validation_split_in_colour(folder, name):
    root = pathlib.Path(folder.path)
    write_image(root / name / "bird" / "x.png", (1, 2, 3), mode="RGB")
    folder.image_shape, folder.validation_size = (4, 5, 3), None
    dataset = create(folder)
    assert len(dataset.train.labels) == 12
    assert dataset.validation.labels.tolist() == [1]
    assert np.unique(dataset.validation.images.reshape(-1, 3), axis=0).tolist() == [
        [1, 2, 3]
    ]
    # A grey file has three equal channels.
    assert (dataset.train.images == dataset.train.images[..., :1]).all()
    write_image(root / "val" / "bird" / "x.png", 0)
    write_image(root / "validation" / "bird" / "x.png", 0)
    refused(folder, "both validation and val")


def test_folder_refuses_what_it_cannot_use(folder):
    root = pathlib.Path(folder.path)
    path = root / "train" / "ape" / "3.png"
    good = path.read_bytes()

    write_image(path, 0, size=(5, 6))
    refused(folder, path, "6x5", "4x5")
    path.write_bytes(good[:-20])
    refused(folder, path, "cannot read")
    path.write_bytes(b"not an image")
    refused(folder, path, "cannot read")
    Image.new("F", (5, 4)).save(path, "TIFF")
    refused(folder, path, "mode F", "8 bits")
    path.write_bytes(good)
    create(folder)

    folder.image_shape = (4, 5, 2)
    refused(folder, "data.image_shape is (4, 5, 2)", "1 or 3 channels")
    folder.image_shape = (4, 5, 1)
    folder.num_classes = 3
    refused(folder, "data.num_classes is 3", "has 2 classes")
    folder.num_classes = 2

    unknown = root / "test" / "cow"
    write_image(unknown / "a.png", 0)
    refused(folder, unknown, "ape, bird")
    (unknown / "a.png").unlink()
    unknown.rmdir()
    empty = root / "train" / "cow"
    empty.mkdir()
    refused(folder, empty, "no images", ".jpeg")
    empty.rmdir()
    (root / "val").mkdir()
    refused(folder, root / "val", "has no directories")
    (root / "val").rmdir()
    (root / "test").rename(root / "tests")
    refused(folder, root / "test", "not a directory")
    refused(with_path(folder, root / "none"), "does not exist", root / "none")
    refused(with_path(folder, ""), "data.path is ''", "'folder'")


@pytest.mark.parametrize(
    ("side", "resize", "given", "expected"),
    [
        (64, "none", None, 1),
        (65, "none", None, None),
        (32, "random_crop", None, None),
        (32, "none", 3, 3),
    ],
)
def test_one_thread_reads_small_images(side, resize, given, expected):
    shape = (side, side, 3)
    records = image_reader.Records(None, np.arange(2), shape, resize, given)
    assert records.threads == expected
