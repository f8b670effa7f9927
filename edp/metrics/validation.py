"""What the host-side metrics accept."""

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError

# Rows need only be probabilities up to the rounding of a low-precision softmax;
# the check is there to catch logits.
_ROW_SUM_TOLERANCE = 1e-2


def as_probs(probs: ArrayLike) -> np.ndarray:
    """Returns `probs` as float64 [N, K], or raises InputError."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 2 or probs.size == 0:
        raise InputError(f"probs must be [N, K] with N, K >= 1, got {probs.shape}")
    # NaN fails both comparisons.
    row_errors = np.abs(probs.sum(axis=1) - 1.0)
    if not (probs.min() >= 0.0 and row_errors.max() <= _ROW_SUM_TOLERANCE):
        raise InputError(
            "probs must be probabilities: found a row with a negative or NaN entry,"
            f" or whose sum is not 1 (smallest entry {probs.min():.4g}, largest"
            f" |sum - 1| {row_errors.max():.4g})"
        )
    return probs


def as_probs_and_labels(
    probs: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 `probs` [N, K] and integer `labels` [N], or raises InputError."""
    probs = as_probs(probs)
    labels = np.asarray(labels)
    num_examples, num_classes = probs.shape
    if labels.shape != (num_examples,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels must be {num_examples} integers, one for each row of probs,"
            f" got {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"labels must lie in 0..{num_classes - 1} (probs has {num_classes}"
            f" classes), got {labels.min()}..{labels.max()}"
        )
    return probs, labels


def as_scores(name: str, scores: ArrayLike) -> np.ndarray:
    """Returns `scores` as float64 [N], or raises InputError that tells `name`."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise InputError(f"{name} must be [N] with N >= 1, got {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    return scores
