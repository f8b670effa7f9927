"""Tests of selective prediction by hand and over all orders of ties."""

import itertools

import numpy as np
import pytest

from edp import metrics


def test_aurc_by_hand():
    # Risks among the 1, 2, 3 most confident: 0, 1/2, 1/3.
    expected = (1 / 2 + 1 / 3) / 3
    assert metrics.aurc([0.7, 0.9, 0.8], [1, 1, 0]) == pytest.approx(expected)
    # A tied pair with one error: expected risks 1/2 and 1/2.
    assert metrics.aurc([0.5, 0.5], [True, False]) == 0.5
    assert metrics.aurc([0.9, 0.8], [True, True]) == 0.0


def test_aurc_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2])
    correct = np.array([1, 0, 1, 1, 0, 1])
    values = []
    for order in itertools.permutations(range(6)):
        if (np.diff(confidence[list(order)]) <= 0).all():
            errors = np.cumsum(1 - correct[list(order)])
            values.append(np.mean(errors / np.arange(1, 7)))
    assert len(values) == 12  # 3! orders of the one tie times 2! of the other.
    aurc = metrics.aurc(confidence, correct)
    assert aurc == pytest.approx(np.mean(values), abs=1e-12)
    assert aurc == pytest.approx(metrics.aurc(confidence[::-1], correct[::-1]))


def test_risk_coverage_by_hand():
    coverage, risk = metrics.risk_coverage([0.7, 0.9, 0.8, 0.1], [1, 1, 0, 1])
    np.testing.assert_allclose(coverage, [1 / 4, 1 / 2, 3 / 4, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4])


def test_risk_coverage_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.5, 0.9, 0.5, 0.1, 0.5, 0.1, 0.9])
    correct = np.array([1, 1, 0, 0, 0, 1, 0])
    risks = []
    for order in map(list, itertools.permutations(range(7))):
        if (np.diff(confidence[order]) <= 0).all():
            wrong = [1 - correct[i] for i in order]
            risks.append([sum(wrong[:n]) / n for n in range(1, 8)])
    assert len(risks) == 6 * 2 * 2
    coverage, risk = metrics.risk_coverage(confidence, correct)
    np.testing.assert_allclose(coverage, np.arange(1, 8) / 7)
    np.testing.assert_allclose(risk, np.mean(risks, axis=0), atol=1e-12)
    assert metrics.aurc(confidence, correct) == pytest.approx(risk.mean(), abs=1e-12)


def test_aurc_without_ties_agrees_with_direct_computation():
    rng = np.random.default_rng(0)
    confidence, correct = rng.permutation(200) / 200, rng.random(200) < 0.7
    by_confidence = sorted(zip(confidence, correct, strict=True), reverse=True)
    wrong = [not right for _, right in by_confidence]
    risks = [sum(wrong[:n]) / n for n in range(1, 201)]
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(risks), abs=1e-9)
