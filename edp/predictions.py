"""Predictions: member probabilities of an ensemble or a student, and their files."""

import collections
import io
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from edp import paths, sharding, workdir
from edp.errors import InputError

# Batches dispatched ahead of the one being copied back: enough that the device
# never waits for the host, few enough that images do not pile up on the device.
_BATCHES_AHEAD = 8


class Images(Protocol):
    """An array [N, H, W, C], or what reads one a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: slice, /) -> np.ndarray: ...


class Predictions(NamedTuple):
    """Member probabilities of one predictor, before pooling.

    Attributes:
      validation_probs: float32 [S, N, K], S members (S = 1 for a plain network).
      validation_labels: integers [N].
      test_probs: float32 [S, N', K].
      test_labels: integers [N'].
    """

    validation_probs: np.ndarray
    validation_labels: np.ndarray
    test_probs: np.ndarray
    test_labels: np.ndarray


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Writes predictions as an uncompressed `.npz`, whole or not at all.

    Probabilities are stored as float32. A file already at `path` is replaced once
    the new one is complete; missing directories are made.

    Raises:
      InputError: the arrays' shapes do not fit together.
    """
    check_shapes(predictions)
    predictions = predictions._replace(
        validation_probs=np.asarray(predictions.validation_probs, np.float32),
        test_probs=np.asarray(predictions.test_probs, np.float32),
    )
    archive = io.BytesIO()
    np.savez(archive, **predictions._asdict())
    workdir.write_bytes(paths.as_path(path), archive.getbuffer())


def load_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Reads what `save_predictions` wrote.

    Raises:
      InputError: the file is missing, damaged, or does not hold predictions.
    """
    try:
        with (
            paths.as_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            predictions = Predictions(*(arrays[name] for name in Predictions._fields))
            check_shapes(predictions)
    except OSError as error:
        raise InputError(f"cannot read predictions: {error}") from error
    except Exception as error:  # A damaged archive can fail in any layer under it.
        raise InputError(
            f"{path} does not hold predictions: {error}; remove it to have them made "
            "again"
        ) from error
    return predictions


def predict_in_batches(
    predict: Callable[[Any], jax.Array], images: Images, batch_size: int
) -> np.ndarray:
    """Applies `predict` to all images, in batches of one size.

    The last batch is filled up with copies of its last image, so that a jitted
    `predict` compiles once whatever the number of images. Batches are dispatched
    ahead of the results, so that the host's slicing and copying and the device's
    work overlap.

    Args:
      predict: jitted function from images [batch_size, H, W, C] to member
        probabilities [S, batch_size, K].
      images: uint8 or float [N, H, W, C]; sliced a batch at a time, so that they may
        be read from disk only then.
      batch_size: examples per call; also the call's size where N is smaller.

    Returns:
      Member probabilities, float32 [S, N, K].

    Raises:
      InputError: no images, a batch size below 1, or a `predict` whose result is
        not [S, batch_size, K].
    """
    num_images = len(images)
    if num_images == 0:
        raise InputError("images must hold at least one image, got none")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    probs = None
    pending: collections.deque[tuple[int, jax.Array]] = collections.deque()
    starts = range(0, num_images, batch_size)
    for start in starts:
        batch = images[start : start + batch_size]
        if missing := batch_size - len(batch):
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        outputs = predict(batch)
        if outputs.ndim != 3 or outputs.shape[1] != batch_size:
            raise InputError(
                f"predict must return [S, {batch_size}, K], got {outputs.shape}"
            )
        if probs is None:
            num_members, _, num_classes = outputs.shape
            probs = np.empty((num_members, num_images, num_classes), np.float32)
        jax.copy_to_host_async(outputs)
        pending.append((start, outputs))
        is_last = start == starts[-1]
        while len(pending) > (0 if is_last else _BATCHES_AHEAD):
            done, outputs = pending.popleft()
            kept = min(batch_size, num_images - done)
            probs[:, done : done + kept] = sharding.fetch(outputs)[:, :kept]
    assert probs is not None  # there is a batch
    return probs


def check_shapes(predictions: Predictions) -> None:
    """Checks that the shapes fit together.

    Raises:
      InputError: they do not; tells the arrays at fault.
    """
    validation, test = predictions.validation_probs, predictions.test_probs
    if validation.ndim != 3 or test.ndim != 3 or 0 in validation.shape + test.shape:
        raise InputError(
            "member probabilities must be [S, N, K] with S, N, K >= 1, got"
            f" validation_probs {validation.shape} and test_probs {test.shape}"
        )
    if validation.shape[::2] != test.shape[::2]:
        raise InputError(
            "validation_probs and test_probs must have the same members and classes"
            f" [S, N, K], got {validation.shape} and {test.shape}"
        )
    for split, labels, probs in (
        ("validation", predictions.validation_labels, validation),
        ("test", predictions.test_labels, test),
    ):
        if labels.shape != probs.shape[1:2]:
            raise InputError(
                f"{split}_labels must be [N], N as in {split}_probs {probs.shape},"
                f" got {labels.shape}"
            )
