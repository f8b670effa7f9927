"""Calibration: calibration errors and temperature scaling (Guo et al., 2017).

The temperature is fitted on the validation split and applied to the test split. The
calibrated metrics (cNLL, cBrier, cECE) are the plain metrics of the tempered
predictions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.scores import EPSILON
from edp.metrics.validation import as_probs, as_probs_and_labels

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0


class ReliabilityBins(NamedTuple):
    """Predictions grouped by confidence into equal-width bins (lo, hi] of [0, 1].

    Attributes:
      counts: examples in each bin, integers [num_bins].
      confidence: mean confidence in each bin [num_bins]; 0 where the bin is empty.
      accuracy: share of correct predictions [num_bins]; 0 where the bin is empty.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


class Temperature(NamedTuple):
    """A fitted temperature, and whether it lies at a bound of the search range."""

    temperature: float
    at_bound: bool


def reliability_bins(
    probs: ArrayLike, labels: ArrayLike, num_bins: int = 15
) -> ReliabilityBins:
    """Groups predictions by the probability of their top class.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
      num_bins: number of equal-width bins.

    Raises:
      InputError: `num_bins` below 1, or as for `accuracy`.
    """
    probs, labels = as_probs_and_labels(probs, labels)
    _check_num_bins(num_bins)
    predicted = probs.argmax(axis=1)
    confidence = probs[np.arange(len(labels)), predicted]
    bins = _bin_indices(confidence, num_bins)
    counts = np.bincount(bins, minlength=num_bins)
    occupied = np.maximum(counts, 1)
    return ReliabilityBins(
        counts=counts,
        confidence=np.bincount(bins, confidence, num_bins) / occupied,
        accuracy=np.bincount(bins, predicted == labels, num_bins) / occupied,
    )


def ece(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """Returns the expected calibration error of the top class (Guo et al., 2017).

    The mean over examples of `|accuracy - confidence|` of their bin; see
    `reliability_bins`.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
      num_bins: number of equal-width bins (lo, hi] of [0, 1].
    """
    bins = reliability_bins(probs, labels, num_bins)
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.sum(bins.counts * gaps) / np.sum(bins.counts))


def adaptive_ece(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """Returns the calibration error of the top class in bins of equal size.

    As `ece`, with the examples sorted by confidence and cut into `num_bins` parts
    whose sizes differ by at most 1 (Nguyen & O'Connor, 2015); the first parts are the
    larger ones. Examples of equal confidence count with their common accuracy, so the
    result does not depend on the order of the input.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
      num_bins: number of bins; N of them where N is smaller.

    Raises:
      InputError: `num_bins` below 1, or as for `accuracy`.
    """
    probs, labels = as_probs_and_labels(probs, labels)
    _check_num_bins(num_bins)
    correct = probs.argmax(axis=1) == labels
    confidence, group, counts = np.unique(
        probs.max(axis=1), return_inverse=True, return_counts=True
    )
    gaps = np.bincount(group, correct) - counts * confidence
    gaps = np.repeat(gaps / counts, counts)
    parts = np.array_split(gaps, min(num_bins, len(gaps)))
    return float(sum(abs(part.sum()) for part in parts) / len(gaps))


def classwise_ece(probs: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """Returns the classwise calibration error (Kull et al., 2019).

    The mean over classes k of the calibration error of p_k against 1[y = k], in
    equal-width bins (lo, hi]; 0 falls into the first one.

    Args:
      probs: probabilities [N, K].
      labels: integer classes [N].
      num_bins: number of bins.

    Raises:
      InputError: `num_bins` below 1, or as for `accuracy`.
    """
    probs, labels = as_probs_and_labels(probs, labels)
    _check_num_bins(num_bins)
    num_examples, num_classes = probs.shape
    gaps = probs.copy()
    gaps[np.arange(num_examples), labels] -= 1.0
    bins = _bin_indices(probs, num_bins) + num_bins * np.arange(num_classes)
    totals = np.bincount(bins.ravel(), gaps.ravel())
    return float(np.abs(totals).sum() / (num_examples * num_classes))


def fit_temperature(probs: ArrayLike, labels: ArrayLike) -> Temperature:
    """Fits the temperature T that minimises the NLL of softmax(log(p + 1e-12) / T).

    This NLL is convex in 1/T. Its minimum over T in [0.05, 20] is the only zero of its
    slope or, where the slope does not change sign, a bound. A root finder on the slope
    is accurate to a relative 1e-9, which minimising the value is not, and detects a
    bound exactly. T is 1 where it has no effect (all rows uniform).

    Args:
      probs: probabilities [N, K] of the validation split, members pooled.
      labels: integer classes [N].

    Returns:
      The temperature, and `at_bound`: whether a T outside [0.05, 20] would be better
      (for example where all predictions are correct).
    """
    from scipy.optimize import brentq  # here, so that importing edp.metrics is fast

    probs, labels = as_probs_and_labels(probs, labels)
    log_probs = _log(probs)
    log_probs -= log_probs.max(axis=1, keepdims=True)
    label_mean = log_probs[np.arange(len(labels)), labels].mean()
    weights = np.empty_like(log_probs)

    def slope(log_temperature: float) -> float:
        """Computes dNLL / d(1/T): the mean of E_p[log p] - log p_y, p tempered."""
        np.multiply(log_probs, np.exp(-log_temperature), out=weights)
        np.exp(weights, out=weights)
        expected = np.einsum("nk,nk->n", weights, log_probs) / weights.sum(axis=1)
        return float(expected.mean() - label_mean)

    bounds = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    coldest, hottest = slope(bounds[0]), slope(bounds[1])
    if coldest == hottest == 0.0:
        return Temperature(1.0, False)
    if coldest <= 0.0:
        return Temperature(MIN_TEMPERATURE, True)
    if hottest >= 0.0:
        return Temperature(MAX_TEMPERATURE, True)
    return Temperature(float(np.exp(brentq(slope, *bounds, xtol=1e-9))), False)


def apply_temperature(probs: ArrayLike, temperature: float) -> np.ndarray:
    """Returns softmax(log(p + 1e-12) / T), float64 [N, K].

    Args:
      probs: probabilities [N, K].
      temperature: T > 0; above 1 flattens, below 1 sharpens.

    Raises:
      InputError: a temperature that is not positive and finite, or rows that are
        not probabilities.
    """
    probs = as_probs(probs)
    if not 0.0 < temperature < np.inf:
        raise InputError(
            f"temperature={temperature} is out of range; accepted: positive, finite "
            "numbers"
        )
    scaled = _log(probs)
    scaled /= temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def _log(probs: np.ndarray) -> np.ndarray:
    """Computes log(p + 1e-12) in a new array, without a second temporary."""
    log_probs = probs + EPSILON
    return np.log(log_probs, out=log_probs)


def _bin_indices(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Returns the equal-width bins (lo, hi] that values fall into, same shape."""
    # Only the inner edges, so a confidence rounded above 1 falls into the last bin.
    edges = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    return np.searchsorted(edges, confidence, side="left")


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise InputError(
            f"num_bins={num_bins} is too small; accepted: integers of at least 1"
        )
