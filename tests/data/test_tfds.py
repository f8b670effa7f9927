"""Tests of TensorFlow Datasets, read without TensorFlow."""

import os
import pathlib
import shutil
import subprocess
import sys

import chex
import numpy as np
import pytest
from small_data import check_form, create, make_config, numbered, numbers, refused

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


def test_stored_labels_of_other_examples_are_not_used(shapes_dir, tmp_path):
    """Of a slice of the same length, whose labels alternate the other way."""
    options = {"stream": True, "test_split": "train[15:]"}
    first, second = (
        shapes_config(shapes_dir, train_split=split, **options)
        for split in ("train[:10]", "train[1:11]")
    )
    path = tmp_path / "split.npz"
    create(first, split_path=path)
    refused(second, "labels_sha256", split_path=path)
    train = create(first, split_path=path).train.in_memory()
    np.testing.assert_array_equal(train.labels, np.asarray(numbers(train)) % 2)


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
    refused_with("2 examples in common", test_split="train[18:]+test")
    refused_with("20 examples in common", test_split="train")
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
