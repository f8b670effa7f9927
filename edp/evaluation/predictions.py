"""Member probabilities of an ensemble or a student, and their files."""

import os
from typing import NamedTuple

import numpy as np

from edp.errors import InputError
from edp.runtime import storage

DATA_DIGESTS = "data sha256"
"""Key of the data's digests in `predictions/made_from.json`, beside the networks.

With a space, it is no name of a student.
"""


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
    """Writes predictions as an uncompressed `.npz`, atomically.

    Probabilities are stored as float32. A file at `path` is replaced; missing
    directories are created.

    Raises:
      InputError: if the shapes of the arrays do not match.
    """
    check_shapes(predictions)
    predictions = predictions._replace(
        validation_probs=np.asarray(predictions.validation_probs, np.float32),
        test_probs=np.asarray(predictions.test_probs, np.float32),
    )
    storage.write_npz(storage.as_path(path), predictions._asdict())


def load_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Reads the file of `save_predictions`.

    Raises:
      InputError: if the file is missing, damaged, or does not hold predictions.
    """
    try:
        predictions = Predictions(**storage.read_npz(path, Predictions._fields))
        check_shapes(predictions)
    except InputError as error:
        if not storage.as_path(path).exists():
            raise
        raise InputError(
            f"{path} does not hold predictions: {error}; remove it to compute "
            "them again"
        ) from error
    return predictions


def check_shapes(predictions: Predictions) -> None:
    """Checks that the shapes match.

    Raises:
      InputError: if they do not; names the arrays.
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
