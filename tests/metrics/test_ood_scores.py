"""Tests of OOD-detection scores by hand, and against SciPy and scikit-learn."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from edp import metrics
from edp.errors import InputError


def test_ood_scores_by_hand():
    scores_in, scores_out = [3.0, 2.0, 1.0], [2.0, 0.0]
    # Of the 6 pairs in-distribution wins (3,2) (3,0) (2,0) (1,0) and ties (2,2).
    assert metrics.auroc(scores_in, scores_out) == pytest.approx(4.5 / 6)
    # At >= 3, 2, 1: precision 1/1, 2/3, 3/4, and recall grows by 1/3 each time.
    expected = (1 + 2 / 3 + 3 / 4) / 3
    assert metrics.aupr(scores_in, scores_out) == pytest.approx(expected)
    # 19 of the 20 scores must be accepted: the threshold is 2.
    scores_in = np.arange(1.0, 21.0)
    assert metrics.fpr_at_95_tpr(scores_in, [2.0, 1.9, 0.0, 50.0]) == 0.5
    # 95 % of 3 is 2.85: all three, threshold 1.
    assert metrics.fpr_at_95_tpr([3.0, 2.0, 1.0], [2.0, 0.0]) == 0.5


def test_ood_scores_of_constant_and_separable_scores():
    assert metrics.auroc([1.0] * 4, [1.0] * 3) == 0.5
    assert metrics.fpr_at_95_tpr([1.0] * 4, [1.0] * 3) == 1.0
    assert metrics.auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert metrics.aupr([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert metrics.fpr_at_95_tpr([2.0, 3.0], [0.0, 1.0]) == 0.0


@pytest.mark.parametrize("num_in", [19, 20, 21, 180, 300])
def test_ood_scores_agree_with_scipy_and_scikit_learn(num_in):
    rng = np.random.default_rng(num_in)
    scores_in = rng.integers(3, 15, num_in).astype(float)  # Many ties.
    scores_out = rng.integers(0, 12, 150).astype(float)
    wins = scipy.stats.mannwhitneyu(scores_in, scores_out).statistic
    auroc = metrics.auroc(scores_in, scores_out)
    assert auroc == pytest.approx(wins / (num_in * 150), abs=1e-9)

    positive = np.r_[np.ones(num_in), np.zeros(150)]
    ranking = np.r_[scores_in, scores_out]
    fpr, tpr, _ = sklearn.metrics.roc_curve(positive, ranking, drop_intermediate=False)
    expected = fpr[np.argmax(tpr >= 0.95)]
    assert metrics.fpr_at_95_tpr(scores_in, scores_out) == pytest.approx(
        expected, abs=1e-9
    )
    precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, ranking)
    expected = -np.sum(np.diff(recall) * precision[:-1])
    assert metrics.aupr(scores_in, scores_out) == pytest.approx(expected, abs=1e-9)


def test_invalid_scores_are_refused():
    for score in (metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr):
        with pytest.raises(InputError, match=r"scores_in has NaN .* finite"):
            score([math.nan], [1.0])
        with pytest.raises(
            InputError, match=r"scores_out has shape \(0,\); accepted: \[N\]"
        ):
            score([1.0], [])
    with pytest.raises(InputError, match="correct has length 1; accepted: 2"):
        metrics.aurc([0.5, 0.6], [1])
    with pytest.raises(InputError, match="0 and 1"):
        metrics.aurc([0.5, 0.6], [1, 2])
