"""Selective prediction: the risk of a predictor that rejects uncertain examples.

The risk at a coverage is the error rate among the accepted, most confident examples.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.validation import as_scores


def risk_coverage(
    confidence: ArrayLike, correct: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the risk-coverage curve (Geifman & El-Yaniv, 2017).

    Among examples of equal confidence, the risk is the expectation over all their
    orders, so it does not depend on the order of the input.

    Args:
      confidence: confidence in each prediction [N]; higher means more certain.
      correct: whether each prediction is correct, booleans or 0/1 [N].

    Returns:
      Over n = 1, ..., N: the coverage n / N [N], and the risk [N], the error rate
      among the n most confident examples.

    Raises:
      InputError: `correct` has another length, or a value other than 0 and 1.
    """
    confidence = as_scores("confidence", confidence)
    correct = as_scores("correct", correct)
    if confidence.shape != correct.shape:
        raise InputError(
            f"correct has length {len(correct)}; accepted: {len(confidence)}, the "
            "length of confidence"
        )
    if not np.isin(correct, (0.0, 1.0)).all():
        raise InputError("correct has other values; accepted: booleans, or 0 and 1")
    # In a random order, each example of a tied group errs at the rate of the group.
    _, group, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    rates = np.bincount(group, 1.0 - correct) / counts
    errors = np.cumsum(np.repeat(rates, counts))
    size = np.arange(1, len(errors) + 1)
    return size / len(errors), errors / size


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Returns the area under the risk-coverage curve: the mean of its risks.

    Args:
      confidence: confidence in each prediction [N]; higher means more certain.
      correct: whether each prediction is correct, booleans or 0/1 [N].

    Raises:
      InputError: `correct` has another length, or a value other than 0 and 1.
    """
    _, risk = risk_coverage(confidence, correct)
    return float(risk.mean())


def augrc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Returns the area under the generalised risk-coverage curve (Traub et al., 2024).

    The mean over n = 1, ..., N of coverage times risk: the fraction of all examples
    that are accepted and wrong. An error among the first accepted examples weighs as
    much as its rank says, where in AURC it dominates. From 0 to 1/2 + 1/(2 N).

    Args:
      confidence: confidence in each prediction [N]; higher means more certain.
      correct: whether each prediction is correct, booleans or 0/1 [N].

    Raises:
      InputError: as for `risk_coverage`.
    """
    coverage, risk = risk_coverage(confidence, correct)
    return float((coverage * risk).mean())


def risk_at_coverage(
    confidence: ArrayLike, correct: ArrayLike, coverage: float = 0.8
) -> float:
    """Returns the error rate among the ⌈`coverage` · N⌉ most confident examples.

    Args:
      confidence: confidence in each prediction [N]; higher means more certain.
      correct: whether each prediction is correct, booleans or 0/1 [N].
      coverage: fraction of examples accepted, in (0, 1].

    Raises:
      InputError: a coverage out of range, or as for `risk_coverage`.
    """
    if not 0.0 < coverage <= 1.0:
        raise InputError(
            f"coverage={coverage} is out of range; accepted: numbers in (0, 1]"
        )
    _, risk = risk_coverage(confidence, correct)
    # Rounded first, so that 0.55 · 100 is 55, not 55.00000000000001.
    accepted = math.ceil(round(coverage * len(risk), 9))
    return float(risk[accepted - 1])


def coverage_at_risk(
    confidence: ArrayLike, correct: ArrayLike, risk: float = 0.05
) -> float:
    """Returns the largest coverage at which the error rate is at most `risk`.

    Args:
      confidence: confidence in each prediction [N]; higher means more certain.
      correct: whether each prediction is correct, booleans or 0/1 [N].
      risk: accepted error rate, in [0, 1].

    Returns:
      The coverage n / N; 0.0 where no coverage has so low a risk.

    Raises:
      InputError: a risk out of range, or as for `risk_coverage`.
    """
    if not 0.0 <= risk <= 1.0:
        raise InputError(f"risk={risk} is out of range; accepted: numbers in [0, 1]")
    coverage, risks = risk_coverage(confidence, correct)
    (accepted,) = np.nonzero(risks <= risk + 1e-12)
    return float(coverage[accepted[-1]]) if len(accepted) else 0.0


def least_ambiguous(ambiguity: ArrayLike, left_out: float) -> np.ndarray:
    """Returns the examples that remain without the most ambiguous ones.

    Scores of the rest tell errors of a predictor from errors of labels: accuracy and
    AURC can be computed on them.

    Args:
      ambiguity: of each example [N], such as the entropy of its labels from several
        people, or of the teachers' mean prediction; higher means more ambiguous.
      left_out: fraction left out, in [0, 1); ⌊`left_out` · N⌋ examples. Of equally
        ambiguous examples the later ones are left out.

    Returns:
      Indices of the remaining examples, ascending.

    Raises:
      InputError: a fraction out of range, or an ambiguity that is not finite.
    """
    ambiguity = as_scores("ambiguity", ambiguity)
    if not 0.0 <= left_out < 1.0:
        raise InputError(
            f"left_out={left_out} is out of range; accepted: numbers in [0, 1)"
        )
    kept = len(ambiguity) - math.floor(round(left_out * len(ambiguity), 9))
    return np.sort(np.argsort(ambiguity, kind="stable")[:kept])
