"""Conformal prediction sets for classification, and how good they are.

Split conformal prediction (Vovk et al., 2005): a threshold from the scores of n
calibration examples gives sets that contain the label of a new, exchangeable example
with a probability of at least `coverage`, whatever the predictor. The calibration
examples must not have been used to train, to choose an epoch or to fit a temperature.
A score of a class is small where the class fits the prediction.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.validation import as_labels, as_probs, as_scores

# Decimals of (n + 1)(1 - α) kept, so that 0.55 · 100 is 55 and not 55.00000000000001.
_DECIMALS = 9


class SetScores(NamedTuple):
    """How good prediction sets are.

    Attributes:
      coverage: fraction of examples whose set contains the label.
      mean_size: mean number of classes in a set.
      class_counts: examples of each class [K].
      class_coverage: coverage among the examples of each class [K]; NaN without any.
      rank_counts: examples whose label is the 1st, 2nd, ..., K-th most probable [K].
      rank_sizes: mean size of their sets [K], the size by difficulty; NaN without any.
    """

    coverage: float
    mean_size: float
    class_counts: np.ndarray
    class_coverage: np.ndarray
    rank_counts: np.ndarray
    rank_sizes: np.ndarray


def thr_scores(probs: ArrayLike) -> np.ndarray:
    """Computes 1 - p_k, the scores of THR, also LAC (Sadinle et al., 2019).

    Its sets have the smallest mean size.

    Args:
      probs: probabilities [N, K].

    Returns:
      The score of each class, float64 [N, K].

    Raises:
      InputError: rows that are not probabilities. All scores raise it.
    """
    return 1.0 - as_probs(probs)


def aps_scores(probs: ArrayLike, uniform: ArrayLike | None = None) -> np.ndarray:
    """Computes the scores of adaptive prediction sets (Romano et al., 2020).

    The probability of the classes up to and including k in descending order, less
    u p_k. Classes of equal probability are ordered by their index.

    Args:
      probs: probabilities [N, K].
      uniform: u in [0, 1], [N]; 0 by default, scores without randomness. Sets of
        either kind have the coverage asked for; those with randomness depend less on
        the example (Romano et al., 2020, section 2).

    Returns:
      The score of each class, float64 [N, K].
    """
    return raps_scores(probs, uniform, penalty=0.0)


def raps_scores(
    probs: ArrayLike,
    uniform: ArrayLike | None = None,
    *,
    penalty: float = 0.1,
    free_ranks: int = 1,
) -> np.ndarray:
    """Computes the scores of regularised APS (Angelopoulos et al., 2021).

    The score of APS plus `penalty` · max(0, rank - `free_ranks`), with the most
    probable class at rank 1; large sets cost more.

    Args:
      probs: probabilities [N, K].
      uniform: u in [0, 1], [N]; 0 by default, as for `aps_scores`.
      penalty: λ >= 0.
      free_ranks: k_reg, the ranks without a penalty.

    Returns:
      The score of each class, float64 [N, K].

    Raises:
      InputError: a penalty or a number of ranks below 0, or `uniform` not [N] in
        [0, 1].
    """
    probs = as_probs(probs)
    if not (0.0 <= penalty < math.inf and free_ranks >= 0):
        raise InputError(
            f"penalty={penalty}, free_ranks={free_ranks} is out of range; accepted: "
            "finite numbers of at least 0"
        )
    order = np.argsort(-probs, axis=1, kind="stable")
    ordered = np.take_along_axis(probs, order, axis=1)
    scores = ordered.cumsum(axis=1)
    if uniform is not None:
        scores -= _as_uniform(uniform, len(probs))[:, None] * ordered
    ranks = np.arange(1, probs.shape[1] + 1)
    scores += penalty * np.maximum(0, ranks - free_ranks)
    by_class = np.empty_like(scores)
    np.put_along_axis(by_class, order, scores, axis=1)
    return by_class


SCORES: dict[str, Callable[..., np.ndarray]] = {
    "thr": thr_scores,
    "aps": aps_scores,
    "raps": raps_scores,
}
"""By name, functions from probabilities [N, K] to scores [N, K], without randomness."""


def conformal_threshold(scores: ArrayLike, coverage: float) -> float:
    """Returns the ⌈(n + 1) c⌉-th smallest calibration score, c being `coverage`.

    With it the probability that a set contains the label of a new example is between
    c and c + 1 / (n + 1), the latter where no scores are equal
    (Lei et al., 2018). The plain c-quantile of the scores covers less.

    Args:
      scores: scores of the labels of n calibration examples [n].
      coverage: 1 - α, between 0 and 1.

    Returns:
      The threshold; infinity where n is too small, so that sets hold every class.

    Raises:
      InputError: scores that are empty, not one-dimensional or not finite, or a
        coverage out of range.
    """
    scores = as_scores("scores", scores)
    _check_coverage(coverage)
    rank = math.ceil(round((len(scores) + 1) * coverage, _DECIMALS))
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1])


def smallest_calibration_size(coverage: float) -> int:
    """Returns the fewest calibration examples that give a finite threshold."""
    _check_coverage(coverage)
    return math.ceil(round(coverage / (1.0 - coverage), _DECIMALS))


def label_scores(scores: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Returns the score of each example's label, [N, K] -> [N].

    Raises:
      InputError: scores that are not finite numbers [N, K], or labels that are not N
        integers below K.
    """
    scores = _as_class_scores(scores)
    labels = as_labels(labels, *scores.shape)
    return scores[np.arange(len(labels)), labels]


def prediction_sets(
    scores: ArrayLike, threshold: float, *, allow_empty: bool = False
) -> np.ndarray:
    """Returns the classes whose score is at most the threshold, booleans [N, K].

    Scores up to 1e-12 above it count as equal, as the rounding of a sum may differ.

    Args:
      scores: the score of each class [N, K], of the kind that gave the threshold.
      threshold: from `conformal_threshold`.
      allow_empty: whether a set without such a class stays empty. By default it gets
        the class with the lowest score, which can only raise the coverage.
    """
    scores = _as_class_scores(scores)
    sets = scores <= threshold + 1e-12
    if not allow_empty:
        sets[np.arange(len(scores)), scores.argmin(axis=1)] = True
    return sets


def coverage_bounds(
    calibration_size: int, test_size: int, coverage: float, level: float = 0.95
) -> tuple[float, float]:
    """Computes the range of the coverage on a test set of finite size.

    Over draws of both sets and continuous scores, the number of covered examples is
    beta-binomial: Binomial(`test_size`, Beta(k, n + 1 - k)), k the rank of the
    threshold (Angelopoulos & Bates, 2023, section 3.2 and appendix C).

    Args:
      calibration_size: n.
      test_size: number of test examples.
      coverage: 1 - α.
      level: probability of a coverage within the range.

    Returns:
      The ends of the central interval.

    Raises:
      InputError: a coverage or level out of range, or no examples.
    """
    from scipy import stats  # here, so that importing edp.metrics is fast

    _check_coverage(coverage)
    if not (calibration_size >= 1 and test_size >= 1 and 0.0 < level < 1.0):
        raise InputError(
            f"calibration_size={calibration_size}, test_size={test_size}, "
            f"level={level} is out of range; accepted: sizes of at least 1, and a "
            "level between 0 and 1"
        )
    rank = math.ceil(round((calibration_size + 1) * coverage, _DECIMALS))
    if rank > calibration_size:
        return 1.0, 1.0
    covered = stats.betabinom(test_size, rank, calibration_size + 1 - rank)
    low, high = covered.ppf([(1 - level) / 2, (1 + level) / 2])
    return float(low / test_size), float(high / test_size)


def set_scores(sets: ArrayLike, probs: ArrayLike, labels: ArrayLike) -> SetScores:
    """Computes coverage and size of prediction sets.

    Args:
      sets: booleans [N, K].
      probs: probabilities [N, K], which define the difficulty: the rank of the label.
        Labels of equal probability as others share the best rank.
      labels: integer classes [N].

    Raises:
      InputError: shapes that do not match, or as for `accuracy`.
    """
    probs, sets = as_probs(probs), np.asarray(sets)
    if sets.shape != probs.shape or sets.dtype != bool:
        raise InputError(
            f"sets has dtype {sets.dtype} and shape {sets.shape}; accepted: booleans "
            f"{probs.shape}, as probs"
        )
    num_examples, num_classes = probs.shape
    labels = as_labels(labels, num_examples, num_classes)
    of_label = probs[np.arange(num_examples), labels]
    ranks = (probs > of_label[:, None]).sum(axis=1)
    covered = sets[np.arange(num_examples), labels]
    sizes = sets.sum(axis=1)
    class_counts, class_coverage = _group_means(labels, covered, num_classes)
    rank_counts, rank_sizes = _group_means(ranks, sizes, num_classes)
    return SetScores(
        coverage=float(covered.mean()),
        mean_size=float(sizes.mean()),
        class_counts=class_counts,
        class_coverage=class_coverage,
        rank_counts=rank_counts,
        rank_sizes=rank_sizes,
    )


def _group_means(
    groups: np.ndarray, values: np.ndarray, num_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the counts of groups and the means of values in them, both [G]."""
    counts = np.bincount(groups, minlength=num_groups)
    totals = np.bincount(groups, values, num_groups)
    means = np.full(num_groups, np.nan)
    return counts, np.divide(totals, counts, out=means, where=counts > 0)


def _as_class_scores(scores: ArrayLike) -> np.ndarray:
    """Returns `scores` as float64 [N, K], or raises InputError."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.size == 0 or not np.isfinite(scores).all():
        raise InputError(
            f"scores has shape {scores.shape} or is not finite; accepted: finite "
            "numbers [N, K] with N, K >= 1"
        )
    return scores


def _as_uniform(uniform: ArrayLike, size: int) -> np.ndarray:
    """Returns numbers in [0, 1], float64 [size], or raises InputError."""
    uniform = as_scores("uniform", uniform)
    if len(uniform) != size or uniform.min() < 0.0 or uniform.max() > 1.0:
        raise InputError(
            f"uniform has length {len(uniform)} and values from {uniform.min():.4g} "
            f"to {uniform.max():.4g}; accepted: {size} numbers in [0, 1]"
        )
    return uniform


def _check_coverage(coverage: float) -> None:
    if not 0.0 < coverage < 1.0:
        raise InputError(
            f"coverage={coverage} is out of range; accepted: numbers between 0 and 1"
        )
