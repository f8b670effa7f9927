"""Scores within groups of examples, such as classes, and changes between predictors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.calibration import ece
from edp.metrics.scores import example_nll
from edp.metrics.validation import as_probs_and_labels


class GroupScores(NamedTuple):
    """Scores of one predictor within each group.

    Attributes:
      groups: the groups that occur, sorted [G].
      counts: their examples [G].
      accuracy: [G].
      nll: [G].
      ece: [G].
    """

    groups: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray

    def worst(self) -> dict[str, float]:
        """Returns the least accuracy and the largest NLL and ECE of any group."""
        return {
            "accuracy": float(self.accuracy.min()),
            "nll": float(self.nll.max()),
            "ece": float(self.ece.max()),
        }


class Churn(NamedTuple):
    """How the predictions of a new predictor differ from those of an old one.

    `good` - `bad` is the difference of the accuracies.

    Attributes:
      churn: fraction of examples whose predicted class differs.
      good: fraction that only the new predictor has right.
      bad: fraction that only the old predictor has right.
    """

    churn: float
    good: float
    bad: float


def group_scores(
    probs: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    num_bins: int = 15,
) -> GroupScores:
    """Computes accuracy, NLL and ECE within each group.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
      groups: the group of each example [N], integers or strings; the labels by
        default. The ECE of a small group is biased upwards.
      num_bins: bins of the ECE.

    Raises:
      InputError: `groups` is not [N], or as for `accuracy`.
    """
    probs, labels = as_probs_and_labels(probs, labels)
    groups = labels if groups is None else np.asarray(groups)
    if groups.shape != labels.shape:
        raise InputError(
            f"groups has shape {groups.shape}; accepted: {labels.shape}, a group for "
            "each example"
        )
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    correct = probs.argmax(axis=1) == labels
    members = [np.nonzero(index == group)[0] for group in range(len(names))]
    return GroupScores(
        groups=names,
        counts=counts,
        accuracy=np.bincount(index, correct) / counts,
        nll=np.bincount(index, example_nll(probs, labels)) / counts,
        ece=np.array([ece(probs[rows], labels[rows], num_bins) for rows in members]),
    )


def churn(old_probs: ArrayLike, new_probs: ArrayLike, labels: ArrayLike) -> Churn:
    """Computes the churn between two predictors (Milani Fard et al., 2016).

    Args:
      old_probs: probabilities of the old predictor [N, K].
      new_probs: those of the new predictor on the same examples [N, K].
      labels: integer classes [N].

    Raises:
      InputError: shapes that differ, or as for `accuracy`.
    """
    old_probs, labels = as_probs_and_labels(old_probs, labels)
    new_probs, _ = as_probs_and_labels(new_probs, labels)
    if old_probs.shape != new_probs.shape:
        raise InputError(
            f"new_probs has shape {new_probs.shape}; accepted: {old_probs.shape}, as "
            "old_probs"
        )
    old, new = old_probs.argmax(axis=1), new_probs.argmax(axis=1)
    return Churn(
        churn=float(np.mean(old != new)),
        good=float(np.mean((new == labels) & (old != labels))),
        bad=float(np.mean((new != labels) & (old == labels))),
    )
