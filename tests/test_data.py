"""Tests of edp.data: every source end to end, the splits, and the batches."""

import contextlib
import functools
import io
import os
import pathlib
import subprocess
import sys
import tarfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from edp import data
from edp.data import splits
from edp.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]


def make_config(**settings):
    """A data section with every key, as the configurations have it."""
    config = {
        "source": "digits",
        "name": None,
        "data_dir": None,
        "path": None,
        "train_size": None,
        "validation_size": None,
        "test_size": None,
        "validation": "stratified",
        "image_shape": (8, 8, 1),
        "num_classes": 10,
        "train_split": "train",
        "test_split": "test",
    }
    return ConfigDict({**config, **settings})


def create(config, seed=0, split_path=None):
    return data.create_dataset(config, seed=seed, split_path=split_path)


def refused(config, *words, seed=0, split_path=None):
    """Checks that a configuration is refused in one line which has all `words`."""
    with pytest.raises(InputError) as caught:
        create(config, seed, split_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def check_form(dataset):
    for split in dataset[:3]:
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert split.images.flags.c_contiguous and split.labels.flags.c_contiguous
        assert split.images.shape[:1] == split.labels.shape
        assert split.images.ndim == 4


def numbered(num_examples, num_classes=3, start=0, shape=(4, 5, 1)):
    """Images all of one value, `start` plus their index, and labels in turn."""
    values = np.arange(start, start + num_examples, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (num_examples, *shape))
    return np.array(images), np.arange(num_examples) % num_classes


def numbers(split):
    """Undoes `numbered`: which examples a split holds."""
    return split.images[:, 0, 0, 0].tolist()


# --- digits -----------------------------------------------------------------


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
    dataset = create(make_config(train_size=1, validation_size=1, test_size=1795))
    assert [len(split.labels) for split in dataset[:3]] == [1, 1, 1795]
    refused(make_config(test_size=1796), "data.test_size is 1796", "1 to 1795")
    refused(make_config(validation_size=797), "data.validation_size is 797", "796")
    refused(make_config(train_size=598), "data.train_size is 598", "1 to 597")
    for bad in (0, -3, 2.5, "7", True):
        refused(make_config(train_size=bad), f"data.train_size is {bad!r}", "integer")


# --- npz --------------------------------------------------------------------


def write_npz(path, **changes):
    """An .npz of 30 training and 9 test examples; None removes an array."""
    train_images, train_labels = numbered(30)
    test_images, test_labels = numbered(9, start=100)
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
        **changes,
    }
    np.savez(path, **{key: x for key, x in arrays.items() if x is not None})
    return make_config(
        source="npz",
        path=str(path),
        image_shape=(4, 5, 1),
        num_classes=3,
        validation_size=6,
    )


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


@pytest.fixture
def npz(tmp_path):
    return write_npz(tmp_path / "set.npz")


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
            {"test_labels": np.zeros((9, 1), int)},
            ["test_labels is int64 [9, 1]", "integers [9]"],
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
        refused(make_npz_like(npz, tmp_path / name), name, "plain arrays")
    refused(make_npz_like(npz, tmp_path / "absent.npz"), "absent.npz", "not exist")
    refused(make_npz_like(npz, tmp_path), tmp_path, "plain arrays")
    refused(make_npz_like(npz, None), "data.path is None", "'npz'")


def make_npz_like(config, path):
    return ConfigDict({**config, "path": path and str(path)})


# --- folder -----------------------------------------------------------------


def write_image(path, value, size=(5, 4), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes, 6 training and 2 test images each, written out of order."""
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
    write_image(path, 0, mode="I;16")
    refused(folder, path, "I;16", "8 bits")
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
    refused(make_npz_like(folder, root / "none"), "does not exist", root / "none")
    refused(make_npz_like(folder, ""), "data.path is ''", "'folder'")


# --- tfds -------------------------------------------------------------------


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory):
    """A TFDS data directory for the made-up set `edp_shapes`."""
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
        """The same, but with text where the label should be."""

        KEYS = ("image", "note")

    class EdpNothing(EdpShapes):
        """The same, but not said to be for classification."""

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
    """A small tar.gz of the form of CIFAR-10's binary version."""
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
    """A .mat file of the form of SVHN's; SVHN writes the digit 0 as 10."""
    from scipy import io as scipy_io

    labels = np.arange(num_examples) % 10 + 1
    images = np.broadcast_to(labels.astype(np.uint8), (32, 32, 3, num_examples))
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"X": images, "y": labels[:, None]})
    return buffer.getvalue()


def corrupted_archive():
    """A small tar of the form of CIFAR-10-C, 12 examples at each severity."""
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
    """Puts made-up downloads where TFDS looks for files fetched by hand.

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
    """Checks that each module's `tf` is afterwards what it was before."""
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


# --- splits -----------------------------------------------------------------


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

    refused_with("data.source is 'cifar'", "'digits', 'synthetic'", source="cifar")
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

    def full_disk(file, **fields):
        file.write(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match="no space left"):
            create(npz, split_path=path)
    assert not list(path.parent.iterdir())
    create(npz, split_path=path)


# --- batches ----------------------------------------------------------------


def test_epoch_order_visits_distinct_examples_and_drops_the_last_batch():
    order = jax.jit(data.epoch_order, static_argnums=(1, 2))
    first = order(jax.random.key(0), 23, 5)
    assert first.shape == (4, 5) and first.dtype == jnp.int32
    visited = np.unique(first)
    assert visited.size == 20 and visited.min() >= 0 and visited.max() < 23
    np.testing.assert_array_equal(first, order(jax.random.key(0), 23, 5))
    assert (first != order(jax.random.key(1), 23, 5)).any()
    whole = order(jax.random.key(0), 6, 6)
    assert sorted(whole[0].tolist()) == [*range(6)]
    # Members visit them as they would alone, each with a key of its own.
    keys = jax.random.split(jax.random.key(0), 3)
    members = data.epoch_order(jax.random.key(0), 23, 5, 3)
    assert members.shape == (4, 3, 5)
    for member, key in enumerate(keys):
        np.testing.assert_array_equal(members[:, member], order(key, 23, 5))
    # Every example is left out at times, and comes first at times.
    keys = jax.random.split(jax.random.key(2), 300)
    orders = jax.jit(jax.vmap(lambda key: data.epoch_order(key, 5, 2)))(keys)
    assert set(np.unique(orders[:, 0, 0])) == set(range(5))
    for size in (0, -1, 24):
        with pytest.raises(InputError, match=f"batch_size is {size} .* 23"):
            data.epoch_order(jax.random.key(0), 23, size)


def test_a_member_visits_its_bootstrap_sample_in_every_epoch():
    num_examples, key = 400, jax.random.key(5)
    samples = np.asarray(data.bootstrap_samples(key, num_examples, 2))
    assert samples.shape == (2, num_examples)
    for sample in samples:  # 1 - 1/e of the examples, give or take three deviations
        assert abs(len(np.unique(sample)) / num_examples - 0.632) < 0.05
    assert (np.sort(samples[0]) != np.sort(samples[1])).any()

    order_key, own_key = (
        np.asarray(jax.random.key_data(k)) for k in (jax.random.key(0), key)
    )
    order = data.EpochOrder(order_key, num_examples, 50, 2, own_key)
    epochs = [np.asarray(jax.jit(order)(np.int32(epoch))) for epoch in range(2)]
    assert (epochs[0] != epochs[1]).any()
    for visited in epochs:
        assert visited.shape == (8, 2, 50) and visited.dtype == np.int32
        for member, sample in enumerate(samples):
            seen = np.sort(visited[:, member].ravel())
            np.testing.assert_array_equal(seen, np.sort(sample))


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 2)])
def test_take_gathers_for_indices_of_any_shape(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 4, 5, 3), dtype=np.uint8)
    split = data.Split(images, rng.integers(0, 9, 11).astype(np.int32))
    indices = rng.integers(0, 11, shape)
    taken, labels = jax.jit(data.take)(jax.device_put(split), indices)
    assert taken.dtype == jnp.uint8 and labels.dtype == jnp.int32
    np.testing.assert_array_equal(taken, images[indices])
    np.testing.assert_array_equal(labels, split.labels[indices])


def test_to_float_maps_bytes_to_the_unit_interval():
    images = np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)
    floats = jax.jit(data.to_float)(images)
    assert floats.dtype == jnp.float32 and floats.shape == images.shape
    assert floats.min() == 0 and floats.max() == 1
    np.testing.assert_allclose(floats, images / 255, rtol=1e-6)
    with pytest.raises(AssertionError):
        data.to_float(floats)


def crops(image, padding, flips):
    """All crops of one image [H, W, C], by loops: {(top, left, flip): crop}."""
    height, width, _ = image.shape
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            for flip in flips:
                crop = np.zeros_like(image)
                for i in range(height):
                    for j in range(width):
                        row = i + top - padding
                        column = (width - 1 - j if flip else j) + left - padding
                        if 0 <= row < height and 0 <= column < width:
                            crop[i, j] = image[row, column]
                found[top, left, flip] = crop
    return found


@pytest.mark.parametrize(
    ("padding", "flip", "dtype"),
    [
        (2, True, np.uint8),
        (2, True, np.float32),
        (2, False, np.uint8),
        (0, True, np.uint8),
        (7, True, np.uint8),
    ],
)
def test_augment_gives_each_image_one_of_its_crops(padding, flip, dtype):
    rng = np.random.default_rng(0)
    size = 3 if padding == 7 else 400
    image = rng.integers(1, 256, (4, 6, 3)).astype(dtype)
    batch = np.broadcast_to(image, (size, *image.shape))
    function = jax.jit(data.augment, static_argnames=("crop_padding", "flip"))
    result = function(jax.random.key(0), batch, crop_padding=padding, flip=flip)
    assert result.shape == batch.shape and result.dtype == dtype
    expected = crops(image, padding, (False, True) if flip else (False,))
    names = {crop.tobytes(): name for name, crop in expected.items()}
    seen = [names[crop.tobytes()] for crop in np.asarray(result)]  # KeyError: none.
    if padding == 7:  # Crops may lie wholly in the padding.
        return
    assert len(names) == len(expected)
    counts = np.array([seen.count(name) for name in expected])
    assert (counts > 0).all()
    # Independent and uniform: chi-squared, at seven standard deviations.
    mean = size / len(expected)
    freedom = len(expected) - 1
    statistic = ((counts - mean) ** 2 / mean).sum()
    assert statistic < freedom + 7 * np.sqrt(2 * freedom)
    again = function(jax.random.key(0), batch, crop_padding=padding, flip=flip)
    np.testing.assert_array_equal(result, again)
    other = function(jax.random.key(1), batch, crop_padding=padding, flip=flip)
    assert (np.asarray(result) != np.asarray(other)).any()


def test_augment_treats_each_image_as_itself():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 256, (5, 4, 6, 1), dtype=np.uint8)
    function = jax.jit(functools.partial(data.augment, crop_padding=1, flip=True))
    result = function(jax.random.key(3), images)
    for image, crop in zip(images, np.asarray(result), strict=True):
        candidates = crops(image, 1, (False, True)).values()
        assert sum(np.array_equal(crop, candidate) for candidate in candidates) == 1
    # Moving pixels and scaling them commute.
    floats = function(jax.random.key(3), data.to_float(images))
    np.testing.assert_array_equal(floats, data.to_float(result))


def test_augment_off_is_the_identity_and_members_can_be_mapped():
    images = np.arange(1, 97, dtype=np.float32).reshape(2, 3, 4, 4, 1)
    member = images[0]
    assert data.augment(jax.random.key(0), member) is member
    function = functools.partial(data.augment, crop_padding=2, flip=True)
    keys = jax.random.split(jax.random.key(0), 2)
    result = jax.jit(jax.vmap(function))(keys, images)
    for member in range(2):
        alone = jax.jit(function)(keys[member], images[member])
        np.testing.assert_array_equal(result[member], alone)
    same = jax.jit(jax.vmap(function))(keys, images[:1].repeat(2, axis=0))
    assert (same[0] != same[1]).any()
    with pytest.raises(InputError, match="crop_padding is -1"):
        data.augment(keys[0], images[0], crop_padding=-1)


def test_a_training_step_reads_batches_under_jit():
    train = jax.device_put(create(make_config()).train)

    @jax.jit
    def step(key):
        order = data.epoch_order(key, 400, 16)
        images, labels = data.take(train, order[0])
        images = data.augment(key, images, crop_padding=1, flip=False)
        return data.to_float(images), labels

    images, labels = step(jax.random.key(0))
    assert images.shape == (16, 8, 8, 1) and images.dtype == jnp.float32
    assert labels.shape == (16,) and 0.1 < images.mean() < 0.6
