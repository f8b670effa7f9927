"""Tests of streamed datasets: reading, resizing, and runs on them."""

import contextlib
import io
import itertools
import json
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from launching import Commands, tiny
from PIL import Image
from sklearn import datasets

from configs import default
from edp import data
from edp.data import image_preparation
from edp.errors import InputError
from edp.experiment.create import create_experiment
from edp.runtime import loop
from launch import distill, train_teachers
from launch.cli import signals

NUM_TRAIN, NUM_TEST = 100, 20
RNG = np.random.default_rng(0)


def make_config(data_dir, **settings):
    """Configures two members and one student on digits, 2 epochs of 4 steps."""
    config = default.get_config()
    config.data.update(source="tfds", name="edp_small_digits", data_dir=str(data_dir))
    config.data.update(validation_size=10, train_size=64, crop_padding=1)
    config.data.update(settings)
    config.model.width = 4
    config.teachers.num_members = 2
    for section in (config.teachers, config.distill):
        section.batch_size, section.num_epochs = 16, 2
        section.warmup_epochs = 0.5
    return config


def photos_config(data_dir, **settings):
    """Configures the same on photos: 2 epochs of 2 steps."""
    config = make_config(
        data_dir,
        name="edp_photos",
        image_shape=(16, 12, 3),
        num_classes=3,
        validation_size=4,
        train_size=None,
        stream=True,
        resize="random_crop",
        **settings,
    )
    config.teachers.batch_size = config.distill.batch_size = 8
    return config


def jpeg(rng, label):
    """Encodes a photo of random size whose colour depends on its class."""
    width, height = rng.integers(40, 91, size=2)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[..., label] += 190
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95)
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Prepares a TFDS data directory with digits and photos of any size."""
    import tensorflow_datasets as tfds

    class EdpSmallDigits(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        IMAGE = tfds.features.Image(shape=(8, 8, 1))
        NUM_CLASSES = 10

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=self.NUM_CLASSES)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": self.IMAGE, "label": label}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {
                "train": self._generate_examples(0, NUM_TRAIN),
                "test": self._generate_examples(NUM_TRAIN, NUM_TRAIN + NUM_TEST),
            }

        def _generate_examples(self, start, stop):
            digits = datasets.load_digits()
            for i in range(start, stop):
                image = (15 * digits.images[i][..., None]).astype(np.uint8)
                yield i, {"image": image, "label": digits.target[i]}

    class EdpPhotos(EdpSmallDigits):
        IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        NUM_CLASSES = 3

        def _generate_examples(self, start, stop):
            rng = np.random.default_rng(start)
            for i in range((stop - start) // 5 + 4):
                yield i, {"image": jpeg(rng, i % 3), "label": i % 3}

    directory = tmp_path_factory.mktemp("tfds")
    for config in (make_config(directory), photos_config(directory)):
        data.create_dataset(config.data, seed=0)
    return directory


# --- Images -----------------------------------------------------------------


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


def test_boxes():
    # The shorter side is 32 as the target would have it: 28 of 32 are seen.
    assert image_preparation.central_box((64, 32), (7, 7)) == (18, 2, 46, 30)
    assert image_preparation.central_box((32, 64), (14, 7)) == (2, 25, 30, 39)
    boxes = [image_preparation.random_box((60, 40), RNG) for _ in range(500)]
    left, top, right, bottom = np.transpose(boxes)
    assert min(left.min(), top.min()) >= 0
    assert right.max() <= 60 and bottom.max() <= 40
    areas = (right - left) * (bottom - top) / (60 * 40)
    ratios = (right - left) / (bottom - top)
    assert 0.0799 < areas.min() < 0.1 and 0.8 < areas.max() <= 1
    assert 0.7499 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.3334
    assert left.std() > 5 and top.std() > 3
    # So long an image that no box of these ratios and areas is in it.
    assert image_preparation.random_box((1000, 10), RNG) == (0, 0, 1000, 10)


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


# --- Batches ----------------------------------------------------------------


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


# --- Runs -------------------------------------------------------------------


def stop_after(monkeypatch, dispatches):
    """Interrupts the next training after a number of steps."""

    @contextlib.contextmanager
    def stop_requests():
        asked = itertools.count()
        yield lambda: next(asked) >= dispatches

    monkeypatch.setattr(signals, "stop_requests", stop_requests)


def train(tfds_dir, workdir, **settings):
    """Trains teachers and a student; returns the variables of both and their logs."""
    config = make_config(tfds_dir, stream=settings.pop("stream"))
    config.update(settings)
    experiment = create_experiment(config, workdir)
    train_teachers.train_teachers(experiment)
    distill.distill_student(experiment, "single_none")
    return results(workdir)


def results(workdir):
    found = []
    for stage in ("teachers", "students/single_none"):
        with ocp.StandardCheckpointer() as checkpointer:
            found.append(checkpointer.restore(workdir / stage / "variables"))
        log = (workdir / stage / "metrics.jsonl").read_text().splitlines()
        found.append([json.loads(line) for line in log])
    return found


def test_neither_streaming_nor_dispatching_changes_a_result(
    tfds_dir, tmp_path, monkeypatch
):
    """An interruption within an epoch changes nothing, also with bootstrap samples."""
    sampled = {"teachers": {"bootstrap": True}}
    expected = train(tfds_dir, tmp_path / "in_memory", stream=False, **sampled)
    streamed = {"stream": True, "steps_per_dispatch": 2, **sampled}
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(loop.Interrupted, match="step 2 of 8"):
            train(tfds_dir, tmp_path / "streamed", **streamed)
    found = train(tfds_dir, tmp_path / "streamed", **streamed)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found,
        expected,
    )
    assert "tensorflow" not in sys.modules


@pytest.mark.long
def test_a_run_on_photos_of_any_size(tfds_dir, tmp_path):
    workdir = tmp_path / "run"
    settings = {
        "source": "tfds",
        "name": "edp_photos",
        "data_dir": tfds_dir,
        "image_shape": "(16, 12, 3)",
        "num_classes": 3,
        "train_size": 20,
        "validation_size": 4,
        "test_size": 8,
        "stream": True,
        "resize": "random_crop",
        "num_workers": 1,
    }
    flags = [f"--config.data.{name}={value}" for name, value in settings.items()]
    flags += ["--config.teachers.batch_size=8", "--config.distill.batch_size=8"]
    done = Commands(tmp_path / "compiled").run(
        "run", *tiny(workdir, "single_gaussian"), *flags
    )
    assert done.code == 0, done
    rows = json.loads((workdir / "results.json").read_text())
    assert [row["model"] for row in rows] == ["DE-1", "DE-2", "single_gaussian"]
    with np.load(workdir / "predictions" / "teachers.npz") as file:
        assert file["test_probs"].shape == (2, 8, 3)
    with np.load(workdir / "split.npz") as file:
        assert len(file["train_labels"]) == 24 and len(file["test_labels"]) == 8
    assert (workdir / "report.html").exists()
