"""Means with standard errors, paired tests and bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.validation import as_scores

# Resampled examples per chunk: the arrays fit in a cache.
_CHUNK = 2**20
# A spread below this fraction of the values is rounding.
_MIN_SPREAD = 1e-9


class Mean(NamedTuple):
    """A mean and its standard error; None for a single value."""

    mean: float
    error: float | None


def mean_and_error(values: ArrayLike) -> Mean:
    """Returns the mean of values [n] and its standard error, s / √n.

    s is the sample standard deviation, with n − 1 in the denominator.

    Raises:
      InputError: no values, or one that is not finite.
    """
    values = as_scores("values", values)
    if len(values) == 1:
        return Mean(float(values[0]), None)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Mean(float(values.mean()), float(error))


def paired_p_value(differences: ArrayLike) -> float | None:
    """Computes a two-sided paired t-test from differences [n].

    Returns:
      The p-value of the null hypothesis that their mean is 0; None where it is
      undefined: a single difference, or differences that are equal up to rounding.

    Raises:
      InputError: no differences, or one that is not finite.
    """
    from scipy import stats  # here, so that importing edp.metrics is fast

    differences = as_scores("differences", differences)
    spread = np.ptp(differences)
    if spread <= _MIN_SPREAD * np.abs(differences).max():
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def bootstrap_intervals(
    values: ArrayLike, *, num_resamples: int = 10_000, level: float = 0.95
) -> np.ndarray:
    """Computes percentile bootstrap intervals of means over examples (Efron, 1979).

    All columns use the same resamples, from a fixed seed, so equal columns have equal
    intervals.

    Args:
      values: [N, C], C quantities of each of N examples, such as differences of
        two predictors.
      num_resamples: number of resamples, each of N examples with replacement.
      level: fraction of the resampled means inside an interval.

    Returns:
      The ends of the intervals, [2, C].

    Raises:
      InputError: values that are not [N, C] or not finite, no resamples, or a level
        that is not between 0 and 1.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(
            f"values has shape {values.shape} or is not finite; accepted: finite "
            "numbers [N, C] with N >= 1"
        )
    if num_resamples < 1:
        raise InputError(
            f"num_resamples={num_resamples} is too small; accepted: integers of at "
            "least 1"
        )
    if not 0 < level < 1:
        raise InputError(
            f"level={level} is out of range; accepted: numbers between 0 and 1"
        )
    rng = np.random.default_rng(0)
    size = len(values)
    at_once = max(1, _CHUNK // size)
    means = np.empty((num_resamples, values.shape[1]))
    for start in range(0, num_resamples, at_once):
        rows = min(at_once, num_resamples - start)
        indices = rng.integers(size, size=(rows, size))
        # Counts per example, so that the means are one matrix product.
        indices += size * np.arange(rows)[:, None]
        counts = np.bincount(indices.ravel(), minlength=rows * size)
        counts = counts.reshape(rows, size).astype(np.float64)
        means[start : start + rows] = counts @ values / size
    tail = (1 - level) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0)
