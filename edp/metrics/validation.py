"""Checks of the inputs of host-side metrics."""

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError

# Allows the rounding of a low-precision softmax; the check is meant to catch logits.
_ROW_SUM_TOLERANCE = 1e-2


def as_probs(probs: ArrayLike) -> np.ndarray:
    """Returns `probs` as float64 [N, K], or raises InputError."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 2 or probs.size == 0:
        raise InputError(
            f"probs has shape {probs.shape}; accepted: [N, K] with N, K >= 1"
        )
    # NaN fails both comparisons.
    row_errors = np.abs(probs.sum(axis=1) - 1.0)
    if not (probs.min() >= 0.0 and row_errors.max() <= _ROW_SUM_TOLERANCE):
        raise InputError(
            f"probs has smallest entry {probs.min():.4g} and largest |row sum - 1| "
            f"{row_errors.max():.4g}; accepted: rows of probabilities (not logits)"
        )
    return probs


def as_members(probs: ArrayLike) -> np.ndarray:
    """Returns member `probs` as float64 [M, N, K], or raises InputError."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 3 or probs.size == 0:
        raise InputError(
            f"probs has shape {probs.shape}; accepted: [M, N, K] with M, N, K >= 1"
        )
    return as_probs(probs.reshape(-1, probs.shape[-1])).reshape(probs.shape)


def as_probs_and_labels(
    probs: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 `probs` [N, K] and integer `labels` [N], or raises InputError."""
    probs = as_probs(probs)
    return probs, as_labels(labels, *probs.shape)


def as_labels(labels: ArrayLike, num_examples: int, num_classes: int) -> np.ndarray:
    """Returns integer `labels` [N] in 0..K-1, or raises InputError."""
    labels = np.asarray(labels)
    if labels.shape != (num_examples,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels has dtype {labels.dtype} and shape {labels.shape}; accepted: "
            f"{num_examples} integers, one per row of probs"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels has values from {labels.min()} to {labels.max()}; accepted: "
            f"classes 0 to {num_classes - 1}"
        )
    return labels


def as_scores(name: str, scores: ArrayLike) -> np.ndarray:
    """Returns `scores` as float64 [N], or raises InputError that names them `name`."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise InputError(f"{name} has shape {scores.shape}; accepted: [N] with N >= 1")
    if not np.isfinite(scores).all():
        raise InputError(f"{name} has NaN or infinity; accepted: finite numbers")
    return scores
