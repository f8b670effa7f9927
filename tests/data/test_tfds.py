"""Tests of TensorFlow Datasets, read without TensorFlow."""

import contextlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

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
)

from edp import data

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    """Prepares a TFDS data directory with the synthetic dataset `edp_shapes`."""
    import tensorflow_datasets as tfds

    class EdpShapes(tfds.core.GeneratorBasedBuilder):
        """Two classes; an extra feature; a split with another image shape."""

        VERSION = tfds.core.Version("1.0.0")
        KEYS = ("image", "label")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(names=["ring", "bar"]),
                "note": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=self.KEYS,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(20),
                "test": self._generate_examples(6, start=100),
                "odd": self._generate_examples(3, shape=(4, 6, 1)),
            }

        def _generate_examples(self, num_examples, **options):
            images, labels = numbered(num_examples, 2, **options)
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": label, "note": f"number {i}"}

    class EdpNotes(EdpShapes):
        """The same with a text feature as the label."""

        KEYS = ("image", "note")

    class EdpNothing(EdpShapes):
        """The same without supervised keys."""

        KEYS = None

    return tmp_path_factory.mktemp("tfds")


def shapes_config(data_dir, **settings):
    config = {"source": "tfds", "name": "edp_shapes", "data_dir": str(data_dir)}
    config.update(image_shape=(4, 5, 1), num_classes=2, validation_size=4)
    return make_config(**{**config, **settings})


def test_tfds_prepares_and_reads_a_set(shapes_dir, monkeypatch, capfd):
    from tensorflow_datasets.core import shuffle

    # The shuffler spills to disk, with TensorFlow, past this many bytes.
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 10)
    config = shapes_config(shapes_dir)
    dataset = create(config)
    assert "%|" not in capfd.readouterr().err
    assert shuffle.MAX_MEM_BUFFER_SIZE == 10
    check_form(dataset)
    assert dataset.class_names == ("ring", "bar")
    assert numbers(dataset.test) == list(range(100, 106))
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == [*range(20)]
    for split in dataset[:3]:
        np.testing.assert_array_equal(split.labels, np.asarray(numbers(split)) % 2)
    files = sorted((shapes_dir / "edp_shapes" / "1.0.0").glob("*array_record*"))
    assert len(files) == 3
    before = [file.stat().st_mtime_ns for file in files]
    chex.assert_trees_all_equal(create(config)[:3], dataset[:3])
    assert [file.stat().st_mtime_ns for file in files] == before
    config = shapes_config(
        shapes_dir,
        name="edp_shapes:1.0.0",
        train_split="train[:10]",
        test_split="train[10:15]",
        validation="last",
    )
    dataset = create(config)
    assert numbers(dataset.train) == [*range(6)]
    assert numbers(dataset.validation) == [*range(6, 10)]
    assert numbers(dataset.test) == [*range(10, 15)]


def test_digest_of_tfds_is_of_the_stored_examples(shapes_dir, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    config = shapes_config(shapes_dir, stream=True)
    before = data.dataset_digest(create(config))
    shutil.copytree(shapes_dir / "edp_shapes", tmp_path / "copy" / "edp_shapes")
    config.data_dir = str(tmp_path / "copy")
    assert data.dataset_digest(create(config)) == before
    # Other images under the same name and version, and of the same number.
    builder = tfds.builder_cls("edp_shapes")
    generate = builder._generate_examples

    def other(self, num_examples, start=0, **options):
        return generate(self, num_examples, start=start + (start > 0), **options)

    monkeypatch.setattr(builder, "_generate_examples", other)
    config.data_dir = str(tmp_path / "other")
    after = data.dataset_digest(create(config))
    assert {name for name in before if after[name] != before[name]} == {"test"}


def test_tfds_reads_without_tensorflow_in_a_fresh_process(shapes_dir):
    create(shapes_config(shapes_dir))
    code = """
import sys
from edp import data
assert "tensorflow_datasets" not in sys.modules
config = dict(source="tfds", name="edp_shapes", data_dir=sys.argv[1],
              image_shape=(4, 5, 1), num_classes=2, validation_size=4)
print(len(data.create_dataset(config, seed=0).train.labels))
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(shapes_dir)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16\n"


def test_tfds_refuses_what_it_cannot_use(shapes_dir, tmp_path):
    def refused_with(*words, **settings):
        refused(shapes_config(shapes_dir, **settings), *words)

    create(shapes_config(shapes_dir))
    refused_with("data.name is None", "TFDS name", name=None)
    refused_with("'no_such_set'", shapes_dir, "not found", name="no_such_set")
    refused_with("'edp_shapes/x:2.0.0'", "2.0.0", name="edp_shapes/x:2.0.0")
    refused_with("'train[:'", "train, test, odd", train_split="train[:")
    refused_with("'dev'", "train, test, odd", test_split="dev")
    refused_with(
        "split 'odd': example 0",
        "is 4x6",
        "data.image_shape asks for 4x5",
        test_split="odd",
    )
    refused_with("(4, 5, 3)", "(None, None, 1)", image_shape=(4, 5, 3))
    for name, keys in (("edp_notes", ("image", "note")), ("edp_nothing", None)):
        refused_with(repr(name), f"supervised_keys {keys}", name=name)
    refused_with("data.num_classes is 3", "has 2 classes", num_classes=3)
    refused_with("data.validation_size is None", "1 to 19", validation_size=None)

    prepared = shapes_dir / "edp_shapes" / "1.0.0"
    copied = tmp_path / "edp_shapes" / "1.0.0"
    copied.mkdir(parents=True)
    for file in prepared.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    info = copied / "dataset_info.json"
    whole = info.read_text()
    info.write_text(whole.replace("array_record", "tfrecord", 1))
    refused(shapes_config(tmp_path), copied, "tfrecord", "another data_dir")
    info.write_text(whole)
    create(shapes_config(tmp_path))
    (copied / "edp_shapes-test.array_record-00000-of-00001").write_bytes(b"broken")
    refused(shapes_config(tmp_path), "'edp_shapes'", "'test'")


def cifar_archive(corrupt=False):
    """Writes a small tar.gz with the layout of CIFAR-10's binary version."""
    rng = np.random.default_rng(0)
    files = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        images = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        rows = [bytes([i]) + image.tobytes() for i, image in enumerate(images)]
        files[name] = b"".join(rows)
    names = [f"class {i}" for i in range(10)]
    files["batches.meta.txt"] = "\n".join([*names, ""]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue(), files


def svhn_file(num_examples):
    """Writes a .mat file with the layout of SVHN, where label 10 is the digit 0."""
    from scipy import io as scipy_io

    labels = np.arange(num_examples) % 10 + 1
    images = np.broadcast_to(labels.astype(np.uint8), (32, 32, 3, num_examples))
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"X": images, "y": labels[:, None]})
    return buffer.getvalue()


def corrupted_archive():
    """Writes a small tar with the layout of CIFAR-10-C, 12 examples per severity."""
    severities = np.repeat(np.arange(5, dtype=np.uint8), 12)
    images = np.broadcast_to(severities[:, None, None, None], (60, 32, 32, 3))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        arrays = {"fog": np.array(images), "labels": np.arange(60) % 4}
        for name, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array)
            member = tarfile.TarInfo(f"CIFAR-10-C/{name}.npy")
            member.size = len(file.getvalue())
            file.seek(0)
            tar.addfile(member, file)
    return buffer.getvalue()


def place_downloads(monkeypatch, name, data_dir, contents):
    """Writes synthetic archives where TFDS looks for manual downloads.

    TFDS compares them with the checksums it has on record, so these are set to
    what the made-up files have.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    known = tfds.builder_cls(name).url_infos
    urls = {info.filename: url for url, info in known.items()}
    for filename, content in contents.items():
        (manual / filename).write_bytes(content)
        info = checksums.compute_url_info(manual / filename)
        monkeypatch.setitem(known, urls[filename], info)


def stock_config(name, data_dir, **settings):
    config = {"source": "tfds", "name": name, "data_dir": str(data_dir)}
    config.update(image_shape=(32, 32, 3), num_classes=10, validation_size=10)
    return make_config(**{**config, **settings})


@contextlib.contextmanager
def unchanged_tensorflow_names():
    """Checks that each module's `tf` is restored."""
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.utils import lazy_imports_utils
    from tensorflow_datasets.image_classification import cifar

    lazy = lazy_imports_utils.tensorflow
    assert cifar.tf is lazy and extractor.tf is lazy
    yield
    assert cifar.tf is lazy and extractor.tf is lazy
    assert "tensorflow" not in sys.modules


def test_stock_cifar10_is_prepared_without_tensorflow(tmp_path, monkeypatch):
    archive, files = cifar_archive()
    config = stock_config("cifar10", tmp_path)
    place_downloads(
        monkeypatch, "cifar10", tmp_path, {"cifar-10-binary.tar.gz": archive}
    )
    with unchanged_tensorflow_names():
        dataset = create(config)
    check_form(dataset)
    assert dataset.class_names == tuple(f"class {i}" for i in range(10))
    assert [len(split.labels) for split in dataset[:3]] == [40, 10, 10]
    expected = set()
    for name, content in files.items():
        if name.startswith("data"):
            rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
            images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            expected |= {
                (label, image.tobytes())
                for label, image in zip(rows[:, 0], images, strict=True)
            }
    found = {
        (label, image.tobytes())
        for split in (dataset.train, dataset.validation)
        for image, label in zip(*split, strict=True)
    }
    assert len(found) == 50 and found == expected


def test_stock_svhn_and_corrupted_cifar10_are_prepared_too(tmp_path, monkeypatch):
    contents = {f"{part}_32x32.mat": svhn_file(40) for part in ("train", "extra")}
    contents["test_32x32.mat"] = svhn_file(10)
    place_downloads(monkeypatch, "svhn_cropped", tmp_path, contents)
    contents = {"CIFAR-10-C.tar": corrupted_archive()}
    place_downloads(monkeypatch, "cifar10_corrupted", tmp_path, contents)
    with unchanged_tensorflow_names():
        svhn = create(stock_config("svhn_cropped", tmp_path))
        fog = create(
            stock_config(
                "cifar10_corrupted/fog_3",
                tmp_path,
                train_split="test[:6]",
                test_split="test[6:]",
                validation_size=2,
            )
        )
    for split in svhn[:3]:
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] % 10)
    assert [len(split.labels) for split in fog[:3]] == [4, 2, 6]
    assert all((split.images == 2).all() for split in fog[:3])


def test_a_set_that_cannot_be_prepared_is_told_in_one_line(tmp_path, monkeypatch):
    import requests

    def no_network(*args, **kwargs):
        raise requests.ConnectionError("the network is unreachable")

    monkeypatch.setattr(requests.Session, "get", no_network)
    config = stock_config("cifar10", tmp_path)
    with unchanged_tensorflow_names():
        refused(config, "'cifar10'", tmp_path, "the network is unreachable")
        refused(config, tmp_path / "downloads" / "manual")
        manual = tmp_path / "downloads" / "manual"
        manual.mkdir()
        (manual / "cifar-10-binary.tar.gz").write_bytes(cifar_archive()[0])
        refused(config, "'cifar10'", tmp_path, "wrong checksum")
        archive = cifar_archive()[0][:-2000]
        contents = {"cifar-10-binary.tar.gz": archive}
        place_downloads(monkeypatch, "cifar10", tmp_path, contents)
        refused(config, "'cifar10'", tmp_path, "xtract")
    assert not list((tmp_path / "cifar10").iterdir())


def test_a_builder_that_needs_more_of_tensorflow_says_so(tmp_path):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import lazy_imports_utils

    class EdpNeedsTensorflow(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"x": np.int64})
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"x": tf.image.decode_png(b"")}  # noqa: F821

    module = sys.modules[__name__]
    module.tf = lazy_imports_utils.tensorflow
    try:
        config = stock_config("edp_needs_tensorflow", tmp_path)
        refused(config, "'edp_needs_tensorflow'", "needs TensorFlow (image)")
        assert module.tf is lazy_imports_utils.tensorflow
    finally:
        del module.tf
