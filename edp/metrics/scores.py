"""Accuracy and proper scores of one predictor, and its deep ensemble equivalent."""

import numpy as np
from numpy.typing import ArrayLike

from edp.metrics.validation import as_probs_and_labels, as_scores

EPSILON = 1e-12  # Inside logarithms: a zero probability costs 27.6 nats, not inf.


def accuracy(probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns the fraction of examples whose most probable class is the label.

    Ties are resolved in favour of the class with the lowest index.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].

    Raises:
      InputError: wrong shapes, no examples, rows that are not probabilities, or
        labels outside 0..K-1. All metrics of labelled predictions raise it.
    """
    probs, labels = as_probs_and_labels(probs, labels)
    return float(np.mean(probs.argmax(axis=1) == labels))


def nll(probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns the negative log-likelihood, -mean log(p_y + 1e-12), in nats.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
    """
    return float(np.mean(example_nll(probs, labels)))


def example_nll(probs: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Returns the negative log-likelihood of each example, float64 [N], in nats."""
    probs, labels = as_probs_and_labels(probs, labels)
    return -np.log(probs[np.arange(len(labels)), labels] + EPSILON)


def brier(probs: ArrayLike, labels: ArrayLike) -> float:
    """Returns the Brier score, the mean over examples of sum_k (p_k - 1[y = k])^2.

    The multi-class form of Brier (1950), from 0 (best) to 2 (worst).

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
    """
    probs, labels = as_probs_and_labels(probs, labels)
    errors = probs.copy()
    errors[np.arange(len(labels)), labels] -= 1.0
    return float(np.einsum("nk,nk->", errors, errors) / len(labels))


def deep_ensemble_equivalent(value: float, ensemble_values: ArrayLike) -> float:
    """Returns the deep ensemble equivalent: the ensemble size that reaches `value`.

    The size, linearly interpolated, at which the ensemble's calibrated NLL reaches
    `value` (Ashukha et al., 2020, as used by Nam et al., 2021). Sizes count only where
    they improve on all smaller ones (the running minimum); on a plateau the smallest
    size counts.

    Args:
      value: calibrated NLL of a model; lower is better.
      ensemble_values: calibrated NLL of DE-1, ..., DE-M, [M].

    Returns:
      0.0 where `value` is worse than DE-1; M where it is at least as good as the
      best of DE-1, ..., DE-M (even if a smaller size attains that best); otherwise a
      size from 1 to M.

    Raises:
      InputError: no ensemble values, or a number that is not finite.
    """
    (value,) = as_scores("value", [value])
    best = np.minimum.accumulate(as_scores("ensemble_values", ensemble_values))
    if value > best[0]:
        return 0.0
    if value <= best[-1]:
        return float(len(best))
    first = int(np.argmax(best <= value))  # DE-(first + 1) is the first to reach it
    if first == 0:
        return 1.0
    worse, better = best[first - 1], best[first]
    return float(first + (worse - value) / (worse - better))
