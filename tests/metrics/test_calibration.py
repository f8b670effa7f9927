"""Tests of calibration errors and temperatures by hand, and against SciPy."""

import math

import numpy as np
import pytest
import scipy.optimize
from small_probs import LABELS, PROBS, random_labels, random_probs

from edp import metrics
from edp.errors import InputError

LOG = math.log


def test_reliability_bins_and_ece_by_hand():
    bins = metrics.reliability_bins(PROBS, LABELS, num_bins=2)
    # Confidences 0.7 (right), 0.6 (wrong), 0.4 (right), 0.5 (wrong); 0.5, on the
    # edge, belongs to (0, 0.5].
    np.testing.assert_array_equal(bins.counts, [2, 2])
    np.testing.assert_allclose(bins.confidence, [0.45, 0.65])
    np.testing.assert_allclose(bins.accuracy, [0.5, 0.5])
    # 2/4 |0.5 - 0.45| + 2/4 |0.5 - 0.65| = 0.025 + 0.075
    assert metrics.ece(PROBS, LABELS, num_bins=2) == pytest.approx(0.1)


def test_empty_bins_and_certain_predictions():
    bins = metrics.reliability_bins([[1.0, 0.0], [0.45, 0.55]], [0, 0])
    # Of 15 bins, 1 is in (14/15, 1] and 0.55 = 8.25/15 in (8/15, 9/15].
    np.testing.assert_array_equal(np.nonzero(bins.counts)[0], [8, 14])
    assert bins.confidence[[8, 14]].tolist() == [0.55, 1.0]
    assert bins.accuracy[[8, 14]].tolist() == [0.0, 1.0]
    assert bins.confidence.sum() == 1.55  # The empty bins hold 0, not NaN.
    assert metrics.ece([[1.0, 0.0], [0.45, 0.55]], [0, 0]) == pytest.approx(0.55 / 2)
    # A float32 softmax may round to above 1.
    above = metrics.reliability_bins([[1.0 + 1e-7, 0.0]], [0])
    assert above.counts.tolist() == [0] * 14 + [1]
    with pytest.raises(InputError, match="num_bins=0 is too small; accepted: int"):
        metrics.ece(PROBS, LABELS, num_bins=0)


def test_apply_temperature_by_hand():
    # Odds of 4 become 4^(1/2) = 2 and 4^2 = 16.
    np.testing.assert_allclose(
        metrics.apply_temperature([[0.8, 0.2]], 2.0), [[2 / 3, 1 / 3]], atol=1e-11
    )
    np.testing.assert_allclose(
        metrics.apply_temperature([[0.8, 0.2]], 0.5), [[16 / 17, 1 / 17]], atol=1e-11
    )
    probs = random_probs(100, 10)
    np.testing.assert_allclose(
        metrics.apply_temperature(probs, 1.0), probs, rtol=0, atol=1e-9
    )
    # Far below the range of fits, exp(log(0.5) / 1e-4) alone would underflow.
    cold = metrics.apply_temperature([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], 1e-4)
    np.testing.assert_array_equal(cold, [[0, 1, 0], [0, 0, 1]])
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"temperature=.* accepted: positive"):
            metrics.apply_temperature(probs, temperature)


def test_fit_temperature_by_hand():
    # All rows give class 0 odds of 9, and it is right 7 times of 10: the best
    # temperature takes the odds to 7/3, so log 9 / T = log(7/3).
    fit = metrics.fit_temperature([[0.9, 0.1]] * 10, [0] * 7 + [1] * 3)
    assert fit.temperature == pytest.approx(LOG(9) / LOG(7 / 3), rel=1e-9)
    assert fit.at_bound is False


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 7.0])
def test_fit_temperature_undoes_a_known_temperature(temperature):
    # Labels in exact proportion to the probabilities: no temperature improves them.
    probs = np.repeat([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], 10, axis=0)
    labels = [0] * 5 + [1] * 3 + [2] * 2 + [0] * 1 + [1] * 6 + [2] * 3
    tempered = metrics.apply_temperature(probs, 1 / temperature)
    fit = metrics.fit_temperature(tempered, labels)
    assert fit.temperature == pytest.approx(temperature, rel=1e-6)
    assert not fit.at_bound
    restored = metrics.apply_temperature(tempered, fit.temperature)
    np.testing.assert_allclose(restored, probs, atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_fit_temperature_agrees_with_minimising_the_nll(sharpness):
    probs = random_probs(500, 8, seed=3)
    labels = random_labels(probs)
    probs = metrics.apply_temperature(probs, 1 / sharpness)

    def objective(log_temperature):
        tempered = metrics.apply_temperature(probs, math.exp(log_temperature))
        return metrics.nll(tempered, labels)

    best = scipy.optimize.minimize_scalar(
        objective, bounds=(LOG(0.05), LOG(20)), method="bounded"
    )
    fit = metrics.fit_temperature(probs, labels)
    assert fit.temperature == pytest.approx(math.exp(best.x), rel=1e-4)
    assert objective(LOG(fit.temperature)) <= best.fun + 1e-12


def test_fit_temperature_reports_a_bound():
    probs = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert metrics.fit_temperature(probs, [0, 1]) == (0.05, True)  # All right.
    assert metrics.fit_temperature(probs, [1, 0]) == (20.0, True)  # All wrong.
    # With certain predictions, some of them wrong, the NLL is finite.
    certain = [[1.0, 0.0]] * 10
    assert metrics.fit_temperature(certain, [0] * 5 + [1] * 5) == (20.0, True)
    # Temperature has no effect on uniform predictions.
    assert metrics.fit_temperature([[0.25] * 4] * 3, [0, 1, 2]) == (1.0, False)
