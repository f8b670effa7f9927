"""Tests of means, paired tests and bootstrap intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from edp import metrics
from edp.errors import InputError
from edp.metrics import statistics


def test_mean_and_error_by_hand():
    mean, error = metrics.mean_and_error([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert error == pytest.approx(math.sqrt(7 / 3) / math.sqrt(3))
    assert metrics.mean_and_error([0.3]) == (0.3, None)
    for wrong in ([], [1.0, math.nan]):
        with pytest.raises(InputError):
            metrics.mean_and_error(wrong)


def test_paired_p_value_by_hand():
    # t = 2 √3 with two degrees of freedom, whose distribution has a closed form.
    expected = 1 - math.sqrt(12 / (12 + 2))
    assert metrics.paired_p_value([1.0, 2.0, 3.0]) == pytest.approx(expected)
    ours, theirs = np.random.default_rng(0).normal(size=(2, 5))
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert metrics.paired_p_value(ours - theirs) == pytest.approx(expected)
    # The test is undefined.
    for differences in ([0.1], [0.0, 0.0], [0.3 - 0.2, 0.1]):
        assert metrics.paired_p_value(differences) is None


def test_bootstrap_against_a_direct_loop(monkeypatch):
    values = np.random.default_rng(1).normal(size=(30, 2)) ** 2
    rng = np.random.default_rng(0)
    means = [values[rng.integers(30, size=30)].mean(0) for _ in range(500)]
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    found = metrics.bootstrap_intervals(values, num_resamples=500)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for chunk in (1, 77):
        monkeypatch.setattr(statistics, "_CHUNK", chunk)
        again = metrics.bootstrap_intervals(values, num_resamples=500)
        np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_bootstrap_covers_what_it_should():
    rng = np.random.default_rng(2)
    values = np.concatenate([np.zeros((400, 1)), rng.normal(size=(400, 1))], axis=1)
    intervals = metrics.bootstrap_intervals(values)
    assert intervals[:, 0].tolist() == [0.0, 0.0]
    # For many samples, the normal interval.
    half = 1.96 * values[:, 1].std() / 20
    expected = values[:, 1].mean() + half * np.array([-1, 1])
    np.testing.assert_allclose(intervals[:, 1], expected, atol=0.06 * half)
    # About 95 % of the intervals of 200 columns contain the true mean.
    intervals = metrics.bootstrap_intervals(
        rng.normal(size=(100, 200)), num_resamples=999
    )
    held = ((intervals[0] < 0) & (intervals[1] > 0)).mean()
    assert 0.88 <= held <= 0.99


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(3), {}, "shape \\(3,\\)"),
        (np.full((3, 1), np.nan), {}, "finite"),
        (np.zeros((3, 1)), {"num_resamples": 0}, "num_resamples=0 is too small"),
        (np.zeros((3, 1)), {"level": 1.0}, "level=1.0 is out of range; accepted"),
    ],
)
def test_bootstrap_refuses(values, options, message):
    with pytest.raises(InputError, match=message):
        metrics.bootstrap_intervals(values, **options)
