"""Files of predictions, and batched prediction."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp.errors import InputError
from edp.evaluation.predictions import Predictions, load_predictions, save_predictions
from edp.runtime.batched import predict_in_batches


def make_predictions(num_members=2, num_examples=60, num_classes=4, seed=0):
    rng = np.random.default_rng(seed)

    def split():
        probs = rng.dirichlet(np.ones(num_classes), (num_members, num_examples))
        labels = rng.integers(num_classes, size=num_examples)
        return probs.astype(np.float32), labels.astype(np.int32)

    return Predictions(*split(), *split())


# Files.


def test_predictions_survive_a_round_trip(tmp_path):
    path = tmp_path / "predictions" / "teachers.npz"
    for seed in (0, 1):  # The second replaces the first.
        predictions = make_predictions(seed=seed)
        save_predictions(path, predictions)
        loaded = load_predictions(path)
        for name, array in predictions._asdict().items():
            np.testing.assert_array_equal(getattr(loaded, name), array)
            assert getattr(loaded, name).dtype == array.dtype
    assert [file.name for file in path.parent.iterdir()] == ["teachers.npz"]


def test_probabilities_are_stored_as_float32(tmp_path):
    path = tmp_path / "p.npz"
    predictions = make_predictions()
    predictions = predictions._replace(test_probs=predictions.test_probs.astype(float))
    save_predictions(path, predictions)
    assert load_predictions(path).test_probs.dtype == np.float32


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    path = tmp_path / "teachers.npz"
    save_predictions(path, make_predictions(seed=0))
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_predictions(path, make_predictions(seed=1))
        assert reader.read() == before
    assert path.read_bytes() != before


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "teachers.npz"
    save_predictions(path, make_predictions(seed=0))
    before = path.read_bytes()

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_predictions(path, make_predictions(seed=1))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["teachers.npz"]


def damage_bytes(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def drop_an_array(path):
    arrays = make_predictions()._asdict()
    del arrays["test_labels"]
    np.savez(path, **arrays)


def mismatch_the_labels(path):
    np.savez(path, **(make_predictions()._asdict() | {"test_labels": np.zeros(3)}))


def pickle_an_array(path):
    np.savez(
        path, **(make_predictions()._asdict() | {"test_labels": np.array([{}] * 60)})
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        damage_bytes,
        drop_an_array,
        mismatch_the_labels,
        pickle_an_array,
    ],
)
def test_missing_or_damaged_predictions_are_refused(tmp_path, damage):
    path = tmp_path / "student.npz"
    save_predictions(path, make_predictions())
    damage(path)
    with pytest.raises(InputError, match=r"student\.npz"):
        load_predictions(path)


@pytest.mark.parametrize(
    ("field", "shape", "message"),
    [
        ("test_probs", (60, 4), r"must be \[S, N, K\]"),
        ("validation_probs", (0, 60, 4), r"must be \[S, N, K\]"),
        ("test_probs", (3, 60, 4), "same members and classes"),
        ("test_probs", (2, 60, 5), "same members and classes"),
        ("validation_labels", (59,), "validation_labels must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path, field, shape, message):
    predictions = make_predictions()._replace(**{field: np.zeros(shape)})
    with pytest.raises(InputError, match=message):
        save_predictions(tmp_path / "p.npz", predictions)
    assert not list(tmp_path.iterdir())


# Batched prediction.


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("num_images", [2, 3, 7, 40])
def test_predict_in_batches(num_images, dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (num_images, 2, 2, 1)).astype(dtype)
    traced = []

    def apply(batch):
        traced.append(batch.shape)
        flat = batch.reshape(len(batch), -1).astype(jnp.float32) / 255
        return jnp.stack([flat, 2 * flat]).astype(jnp.bfloat16)

    probs = predict_in_batches(jax.jit(apply), images, batch_size=3)
    assert traced == [(3, 2, 2, 1)]
    assert isinstance(probs, np.ndarray) and probs.dtype == np.float32
    np.testing.assert_array_equal(probs, np.asarray(apply(images), np.float32))


def test_predict_in_batches_refuses_what_it_cannot_do():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    with pytest.raises(InputError, match="at least one image"):
        predict_in_batches(lambda batch: batch, images[:0], 2)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        predict_in_batches(lambda batch: batch, images, 0)
    with pytest.raises(InputError, match=r"\[S, 2, K\], got \(2, 5\)"):
        predict_in_batches(lambda batch: jnp.zeros((2, 5)), images, 2)
