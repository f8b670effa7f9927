"""Conformal prediction sets of a predictor, from its calibration images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edp import metrics
from edp.metrics import conformal


def fit_thresholds(
    probs: np.ndarray, labels: np.ndarray, score: str, coverages: Sequence[float]
) -> dict[str, Any]:
    """Fits the threshold of prediction sets to calibration images.

    Args:
      probs: calibrated probabilities of the calibration images [n, K].
      labels: integers [n].
      score: name in `conformal.SCORES`.
      coverages: probabilities with which the sets are to contain the label.

    Returns:
      JSON values: `score`, `calibration_size`, and `thresholds`, a list of `coverage`
      and `threshold`. Coverages for which there are too few images are left out.
    """
    scores = metrics.label_scores(conformal.SCORES[score](probs), labels)
    return {
        "score": score,
        "calibration_size": len(labels),
        "thresholds": [
            {
                "coverage": float(coverage),
                "threshold": metrics.conformal_threshold(scores, coverage),
            }
            for coverage in coverages
            if len(labels) >= metrics.smallest_calibration_size(coverage)
        ],
    }


def set_row(
    fitted: Mapping[str, Any], probs: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Computes how good the sets for the first coverage are.

    Args:
      fitted: from `fit_thresholds`.
      probs: calibrated probabilities of the test images [N, K].
      labels: integers [N].

    Returns:
      `set_coverage` and `set_size`, and as arrays `set_coverage_by_class` [K] and
      `set_size_by_rank` [K]; see `metrics.SetScores`. Empty without a threshold.
    """
    if not fitted["thresholds"]:
        return {}
    threshold = fitted["thresholds"][0]["threshold"]
    scores = conformal.SCORES[fitted["score"]](probs)
    sets = metrics.prediction_sets(scores, threshold)
    found = metrics.set_scores(sets, probs, labels)
    return {
        "set_coverage": found.coverage,
        "set_size": found.mean_size,
        "set_coverage_by_class": found.class_coverage,
        "set_size_by_rank": found.rank_sizes,
    }
