"""Tests of accuracy, proper scores and deep-ensemble equivalents by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from small_probs import LABELS, PROBS, random_labels, random_probs

from edp import metrics
from edp.errors import InputError

LOG = math.log


def test_scores_by_hand():
    assert metrics.accuracy(PROBS, LABELS) == 0.5
    # The labels' probabilities are 0.7, 0.3, 0.4, 0.25; their product is 0.021.
    assert metrics.nll(PROBS, LABELS) == pytest.approx(-LOG(0.021) / 4, abs=1e-11)
    # 0.09 + 0.04 + 0.01 = 0.14      0.01 + 0.36 + 0.49 = 0.86
    # 0.09 + 0.09 + 0.36 = 0.54      0.25 + 0.5625 + 0.0625 = 0.875
    assert metrics.brier(PROBS, LABELS) == pytest.approx(2.415 / 4, abs=1e-12)


def test_scores_of_certain_predictions():
    certain = [[1.0, 0.0], [0.0, 1.0]]
    assert metrics.brier(certain, [0, 1]) == 0.0
    assert metrics.brier(certain, [1, 0]) == 2.0
    assert metrics.nll(certain, [0, 1]) == pytest.approx(0.0, abs=1e-11)
    assert metrics.nll(certain, [1, 0]) == pytest.approx(12 * LOG(10))  # -log 1e-12


def test_soft_label_scores_by_hand():
    probs, soft = [[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]
    found = metrics.soft_label_scores(probs, soft)
    # Cross-entropies log 2 and (log 4 + log 4/3) / 2; entropies of q 0 and log 2.
    nll = (LOG(2) + (LOG(4) + LOG(4 / 3)) / 2) / 2
    expected = {"soft_nll": nll, "soft_kl": nll - LOG(2) / 2, "soft_tv": 0.375}
    assert found == pytest.approx(expected, abs=1e-9)
    same = metrics.soft_label_scores(soft, soft)
    assert same["soft_kl"] == same["soft_tv"] == 0
    with pytest.raises(InputError, match=r"soft_labels are \[2, 2\]"):
        metrics.soft_label_scores(PROBS[:2], soft)


def test_ties_predict_the_first_class():
    assert metrics.accuracy([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], [0, 2]) == 0.5


def test_float32_and_jax_input_is_scored_in_float64():
    probs = random_probs(50, 4).astype(np.float32)
    labels = random_labels(probs)
    for score in (metrics.nll, metrics.brier, metrics.ece, metrics.accuracy):
        expected = score(probs.astype(np.float64), labels)
        assert score(jnp.asarray(probs), jnp.asarray(labels)) == expected
        assert type(expected) is float


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([0.5, 0.5], [0], r"probs has shape .* accepted: \[N, K\]"),
        (np.zeros((0, 3)), np.zeros(0, int), r"probs has shape .* accepted: \[N, K\]"),
        ([[2.0, -1.0]], [0], "accepted: rows of probabilities"),
        ([[3.0, 1.0]], [0], "accepted: rows of probabilities"),
        ([[math.nan, 1.0]], [0], "accepted: rows of probabilities"),
        ([[0.5, 0.5]], [0, 1], "accepted: 1 integers"),
        ([[0.5, 0.5]], [0.0], "accepted: 1 integers"),
        ([[0.5, 0.5]], [2], "labels has values from .* accepted: classes 0 to 1"),
        ([[0.5, 0.5]], [-1], "labels has values from .* accepted: classes 0 to 1"),
    ],
)
def test_invalid_predictions_are_refused(probs, labels, message):
    for score in (metrics.accuracy, metrics.nll, metrics.brier, metrics.ece):
        with pytest.raises(InputError, match=message):
            score(probs, labels)
    with pytest.raises(InputError, match=message):
        metrics.fit_temperature(probs, labels)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1.1, 0.0),  # Worse than DE-1.
        (1.0, 1.0),
        (0.9, 1.5),
        (0.8, 2.0),
        (0.7, 3.0),  # A plateau from DE-3 to DE-4 (0.75 does not improve on 0.7).
        (0.675, 4.5),
        (0.65, 5.0),
        (0.1, 5.0),  # Better than DE-5.
    ],
)
def test_deep_ensemble_equivalent(value, size):
    ensemble = [1.0, 0.8, 0.7, 0.75, 0.65]
    assert metrics.deep_ensemble_equivalent(value, ensemble) == pytest.approx(size)


def test_deep_ensemble_equivalent_of_short_and_flat_ensembles():
    assert metrics.deep_ensemble_equivalent(0.6, [0.5]) == 0.0
    assert metrics.deep_ensemble_equivalent(0.5, [0.5]) == 1.0
    assert metrics.deep_ensemble_equivalent(0.4, [0.5]) == 1.0
    # As good as the largest ensemble; the second is equally good.
    assert metrics.deep_ensemble_equivalent(0.5, [1.0, 0.5, 0.5]) == 3.0
    for value, ensemble in ((math.nan, [0.5]), (0.5, []), (0.5, [math.inf])):
        with pytest.raises(InputError, match="value"):
            metrics.deep_ensemble_equivalent(value, ensemble)
