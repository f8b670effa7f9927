"""Ways to pool members, by hand."""

import numpy as np
import pytest

from edp import metrics

# Two members, one example each way.
PROBS = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.8, 0.2]]])


def draw(num_members, sharpness, num_examples=400):
    """Draws members whose logits are a signal and noise, times a sharpness each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=num_examples)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(num_members, num_examples, 3))
    probs = np.exp(np.reshape(sharpness, (-1, 1, 1)) * logits)
    return probs / probs.sum(-1, keepdims=True), labels


def test_means_by_hand():
    np.testing.assert_allclose(
        metrics.arithmetic_mean(PROBS), [[0.5, 0.5], [0.65, 0.35]]
    )
    # √(0.5 · 0.8) : √(0.5 · 0.2) = 2 : 1
    np.testing.assert_allclose(
        metrics.geometric_mean(PROBS), [[0.5, 0.5], [2 / 3, 1 / 3]], rtol=1e-9
    )


def test_the_geometric_mean_is_that_of_logits():
    logits = np.random.default_rng(0).normal(size=(4, 5, 3))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.exp(logits.mean(0)) / np.exp(logits.mean(0)).sum(-1, keepdims=True)
    np.testing.assert_allclose(metrics.geometric_mean(probs), expected, rtol=1e-9)


def test_a_pool_of_one_member_is_its_calibration():
    probs, labels = draw(1, 3.0)
    temperature = metrics.fit_temperature(probs[0], labels).temperature
    expected = metrics.apply_temperature(probs[0], temperature)
    for name in metrics.POOLS:
        pool = metrics.fit_pool(name, probs, labels)
        np.testing.assert_allclose(pool.calibrate(probs), expected, atol=1e-6)
        assert pool.validation_nll == pytest.approx(metrics.nll(expected, labels))


def test_tempered_members_have_their_own_temperatures():
    """Members that differ in sharpness alone pool as if they were equally sharp."""
    equal, labels = draw(2, [1.0, 1.0])
    unequal, _ = draw(2, [0.5, 4.0])
    pools = [metrics.fit_pool("tempered", probs, labels) for probs in (equal, unequal)]
    np.testing.assert_allclose(
        pools[0].calibrate(equal), pools[1].calibrate(unequal), atol=1e-5
    )


def test_a_members_temperature_is_proportional_to_its_sharpness():
    probs, labels = draw(1, 1.0)
    sharper = probs**4 / (probs**4).sum(-1, keepdims=True)
    of = metrics.member_temperatures(np.concatenate([probs, sharper]), labels)
    assert of[1] == pytest.approx(4 * of[0], rel=1e-3)


def test_the_best_pool_has_the_lowest_nll():
    for sharpness in ([3.0, 3.0, 3.0], [0.2, 1.0, 5.0]):
        probs, labels = draw(3, sharpness)
        nlls = {
            name: metrics.fit_pool(name, probs, labels).validation_nll
            for name in metrics.POOLS
        }
        best = metrics.best_pool(probs, labels)
        assert best.name == min(nlls, key=nlls.__getitem__)
        assert best.validation_nll == min(nlls.values())
