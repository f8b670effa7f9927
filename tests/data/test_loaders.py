"""Tests of datasets in the forms in which they are published, as small copies."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy import io as matlab
from small_data import check_form, create, make_config, numbered, numbers, refused

from edp.data import sources
from edp.data.loaders import digits

WNIDS = ("n00000001", "n00000003", "n00000007")


def write_image(path, value, size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, "PNG")


def config_of(source, path, **settings):
    shape = {"image_shape": (4, 5, 1), "num_classes": 3, "validation_size": 3}
    return make_config(source=source, path=str(path), **{**shape, **settings})


def write_train(root, subfolder):
    for label, wnid in enumerate(WNIDS):
        for i in range(3):
            write_image(root / "train" / wnid / subfolder / f"{wnid}_{i}.JPEG", label)


def test_digits_are_scikit_learns(monkeypatch):
    read, class_names = digits.read_digits()
    assert read.images.shape == (1797, 8, 8, 1) and read.images.max() == 255
    assert class_names == tuple("0123456789")
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    loaded, _ = digits.read_digits()
    np.testing.assert_array_equal(read.images, loaded.images)
    np.testing.assert_array_equal(read.labels, loaded.labels)


def test_tiny_imagenet_as_it_unpacks(tmp_path, capsys):
    write_train(tmp_path, "images")
    (tmp_path / "train" / WNIDS[0] / f"{WNIDS[0]}_boxes.txt").write_text("0 0 1 1")
    lines = []
    for i, label in enumerate([2, 0, 1, 2]):
        write_image(tmp_path / f"val/images/val_{i}.JPEG", 100 + label)
        lines.append(f"val_{i}.JPEG\t{WNIDS[label]}\t0\t32\t44\t62\n")
    annotations = tmp_path / "val/val_annotations.txt"
    annotations.write_text("".join(reversed(lines)))
    write_image(tmp_path / "test/images/test_0.JPEG", 0)  # without labels
    (tmp_path / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (tmp_path / "words.txt").write_text(
        f"n00000000\tentity\n{WNIDS[0]}\tcrane, bird\n{WNIDS[1]}\tcrane, lifter\n"
        f"{WNIDS[2]}\tEgyptian cat\n"
    )
    config = config_of("folder", tmp_path)
    dataset = create(config)
    check_form(dataset)
    assert dataset.class_names == (
        "crane (n00000001)",
        "crane (n00000003)",
        "Egyptian cat",
    )
    assert numbers(dataset.test) == [102, 100, 101, 102]
    assert dataset.test.labels.tolist() == [2, 0, 1, 2]
    for split in (dataset.train, dataset.validation):
        assert numbers(split) == split.labels.tolist()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ImageNet's layout; 4 validation images" in said

    annotations.write_text("".join(lines[1:]))
    refused(config, annotations, "no label for 1 images", "val_0.JPEG")
    annotations.write_text("".join(lines).replace(WNIDS[1], "n00000002"))
    refused(config, annotations, "the label 'n00000002'", "3 directories")
    annotations.unlink()
    refused(config, "no list of their labels", "val.txt", "LOC_val_solution.csv")


@pytest.mark.parametrize("form", ["val.txt", "kaggle", "synsets"])
def test_imagenet_as_it_unpacks(form, tmp_path):
    root = tmp_path / "ILSVRC/Data/CLS-LOC" if form == "kaggle" else tmp_path
    write_train(root, "")
    names = [f"ILSVRC2012_val_{i:08}" for i in range(1, 5)]
    labels = [1, 1, 2, 0]
    for name, label in zip(names, labels, strict=True):
        write_image(root / "val" / f"{name}.JPEG", 100 + label)
    of_image = list(zip(names, labels, strict=True))
    if form == "val.txt":
        text = "".join(f"{n}.JPEG {k}\n" for n, k in reversed(of_image))
        (tmp_path / "val.txt").write_text(text)
    elif form == "kaggle":
        text = "".join(f"{n},{WNIDS[k]} 1 2 3 4 \n" for n, k in reversed(of_image))
        text = f"ImageId,PredictionString\n{text}"
        (tmp_path / "LOC_val_solution.csv").write_text(text)
        mapping = "".join(f"{wnid} name of {wnid}, other\n" for wnid in WNIDS)
        (tmp_path / "LOC_synset_mapping.txt").write_text(mapping)
    else:
        text = "".join(f"{WNIDS[label]}\n" for label in labels)
        path = tmp_path / "imagenet_2012_validation_synset_labels.txt"
        path.write_text(text)
    config = config_of("folder", tmp_path)
    dataset = create(config)
    assert dataset.test.labels.tolist() == labels
    assert numbers(dataset.test) == [101, 101, 102, 100]
    named = tuple(f"name of {wnid}" for wnid in WNIDS)
    assert dataset.class_names == (named if form == "kaggle" else WNIDS)
    if form == "synsets":
        path.write_text(text + f"{WNIDS[0]}\n")
        refused(config, path, "5 labels for 4 images")


def cifar_records(number, num_labels, start):
    rng = np.random.default_rng(start)
    images = rng.integers(256, size=(number, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(start, start + number, dtype=np.uint8) % (10 * num_labels**3)
    columns = [labels[:, None]] if num_labels == 1 else [labels[:, None] // 5]
    columns += [labels[:, None]] if num_labels == 2 else []
    pixels = images.transpose(0, 3, 1, 2).reshape(number, -1)
    return images, labels, np.hstack([*columns, pixels]).tobytes()


def test_cifar_10_binary(tmp_path):
    expected = []
    for i in range(1, 6):
        images, labels, content = cifar_records(4, 1, 4 * i)
        (tmp_path / f"data_batch_{i}.bin").write_bytes(content)
        expected.append((images, labels))
    images, labels, content = cifar_records(10, 1, 0)
    (tmp_path / "test_batch.bin").write_bytes(content)
    names = [f"name{i}" for i in range(10)]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    source = sources.SOURCES["cifar"].load(path=tmp_path)
    np.testing.assert_array_equal(source.test.images, images)
    np.testing.assert_array_equal(source.test.labels, labels)
    for part, index in (("images", 0), ("labels", 1)):
        np.testing.assert_array_equal(
            getattr(source.train, part), np.concatenate([e[index] for e in expected])
        )
    config = config_of("cifar", tmp_path, image_shape=(32, 32, 3), num_classes=10)
    config.validation_size = 5
    dataset = create(config)
    check_form(dataset)
    assert dataset.class_names == tuple(names)
    (tmp_path / "test_batch.bin").write_bytes(content[:-1])
    refused(config, "test_batch.bin has 30729 bytes", "3073")
    (tmp_path / "data_batch_4.bin").unlink()
    refused(config, "data_batch_4.bin cannot be read")


def test_cifar_100_binary_has_fine_labels_and_pickles_are_refused(tmp_path):
    for name in ("train", "test"):
        images, labels, content = cifar_records(100, 2, 0)
        (tmp_path / f"{name}.bin").write_bytes(content)
    source = sources.SOURCES["cifar"].load(path=tmp_path)
    np.testing.assert_array_equal(source.train.labels, labels)
    np.testing.assert_array_equal(source.train.images, images)
    assert labels.max() > 60 and source.class_names is None
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").unlink()
    config = config_of("cifar", tmp_path, image_shape=(32, 32, 3))
    refused(config, "neither data_batch_1.bin nor train.bin", "cifar-10-binary.tar.gz")
    (tmp_path / "train").write_bytes(b"\x80\x02}q\x01.")
    (tmp_path / "meta").write_bytes(b"\x80\x02}q\x01.")
    refused(config, "pickles (train, meta)", "cifar-100-binary.tar.gz", "'tfds'")


def test_svhn(tmp_path, capsys):
    wanted = {}
    for part, labels in (("train", [10, 1, 2, 10, 2, 1]), ("test", [2, 10, 1])):
        images = numbered(len(labels), start=len(labels), shape=(32, 32, 3))[0]
        images[:, 0, 1, 2] = 77  # row, column, channel
        wanted[part] = images
        arrays = {"X": images.transpose(1, 2, 3, 0), "y": np.uint8(labels)[:, None]}
        matlab.savemat(tmp_path / f"{part}_32x32.mat", arrays, do_compression=True)
    (tmp_path / "extra_32x32.mat").write_bytes(b"")
    source = sources.SOURCES["svhn"].load(path=str(tmp_path))
    np.testing.assert_array_equal(source.train.images, wanted["train"])
    assert source.train.labels.tolist() == [0, 1, 2, 0, 2, 1]
    assert source.test.labels.tolist() == [2, 0, 1]
    assert "extra_32x32.mat is not read" in capsys.readouterr().err
    config = config_of("svhn", tmp_path, image_shape=(32, 32, 3), num_classes=10)
    check_form(create(config))
    arrays["y"] = arrays["y"] % 10
    matlab.savemat(tmp_path / "test_32x32.mat", arrays)
    refused(config, "test_32x32.mat: y has labels 0 to 2", "1 to 10")
    matlab.savemat(tmp_path / "test_32x32.mat", {"X": arrays["X"]})
    refused(config, "has no array y")
    (tmp_path / "test_32x32.mat").write_bytes(b"no MATLAB file")
    refused(config, "cannot be read as a MATLAB file")
    (tmp_path / "test_32x32.mat").unlink()
    refused(config, "test_32x32.mat does not exist")


def write_parquet(path, values, labels, image="img", label="fine_label", names=None):
    import pyarrow as pa
    from pyarrow import parquet

    encoded = []
    for value in values:
        file = io.BytesIO()
        Image.new("L", (5, 4), int(value)).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": f"{value}.png"})
    table = pa.table({image: encoded, label: labels, "coarse_label": labels})
    if names:
        told = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=2)


@pytest.mark.parametrize("stream", [False, True])
def test_parquet_of_the_hugging_face_hub(stream, tmp_path):
    names = ["ant", "bee", "cat"]
    for i in range(2):
        values = np.arange(6) + 6 * i
        write_parquet(
            tmp_path / f"train_data/train-0000{i}-of-00002.parquet",
            values,
            values % 3,
            names=names,
        )
    write_parquet(
        tmp_path / "train_data/test-00000-of-00001.parquet", [100, 101], [1, 2]
    )
    config = config_of("parquet", tmp_path, stream=stream)
    dataset = create(config)
    dataset = dataset._replace(
        **{n: getattr(dataset, n).in_memory() for n in ("train", "validation", "test")}
    )
    check_form(dataset)
    assert dataset.class_names == tuple(names)
    assert numbers(dataset.test) == [100, 101]
    assert dataset.test.labels.tolist() == [1, 2]
    every = numbers(dataset.train) + numbers(dataset.validation)
    assert sorted(every) == list(range(12))
    assert [n % 3 for n in numbers(dataset.train)] == dataset.train.labels.tolist()


def test_parquet_faults_are_told(tmp_path):
    config = config_of("parquet", tmp_path)
    refused(config, "has no train*.parquet", "no Parquet files")
    write_parquet(tmp_path / "train/0000.parquet", range(6), np.arange(6) % 3)
    refused(config, "has no test*.parquet", "0000.parquet")
    write_parquet(tmp_path / "validation/0000.parquet", [7, 8, 9], [0, 1, 2])
    assert numbers(create(config).test) == [7, 8, 9]
    write_parquet(tmp_path / "validation/0000.parquet", [7], [0], label="score")
    refused(config, "columns", "coarse_label (int64)", "fine_label")
    (tmp_path / "validation/0000.parquet").write_bytes(b"PAR1 no PAR1")
    refused(config, "0000.parquet cannot be read")
    write_parquet(tmp_path / "other/train/0000.parquet", range(6), np.arange(6) % 3)
    refused(config, "several datasets", "other/train")
    write_parquet(tmp_path / "lost/train-00001-of-00002.parquet", [1, 2], [0, 1])
    write_parquet(tmp_path / "lost/test-00000-of-00001.parquet", [1, 2], [0, 1])
    config.path = str(tmp_path / "lost")
    refused(config, "lost has 1 files", "train-00001-of-00002", "must be 2")
    found = tmp_path / "lost/train-00001-of-00002.parquet"
    found.rename(found.with_name("train-00001-of-00002-1fd8e1bd9f0ed72a.parquet"))
    refused(config, "lost has 1 files", "train-00001-of-00002-1f", "must be 2")
