"""Tests of the diversity of members against hand-computed values and identities."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_probs import random_labels, random_probs

from edp import metrics
from edp.errors import InputError

LOG = math.log


def test_diversity_by_hand():
    probs = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    # KL(p1 || p2) = 0.5 log(0.5/0.9) + 0.5 log(0.5/0.1) = 0.5 log(25/9) = log(5/3)
    # KL(p2 || p1) = 0.9 log(0.9/0.5) + 0.1 log(0.1/0.5)
    kl = (LOG(5 / 3) + 0.9 * LOG(1.8) + 0.1 * LOG(0.2)) / 2
    np.testing.assert_allclose(metrics.pairwise_kl(probs), [kl], atol=1e-10)
    pooled = -0.7 * LOG(0.7) - 0.3 * LOG(0.3)
    members = (LOG(2) - 0.9 * LOG(0.9) - 0.1 * LOG(0.1)) / 2
    np.testing.assert_allclose(metrics.predictive_entropy(probs), [pooled], atol=1e-10)
    np.testing.assert_allclose(
        metrics.mutual_information(probs), [pooled - members], atol=1e-10
    )
    # For one predictor: the entropy of its rows.
    np.testing.assert_allclose(
        metrics.predictive_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])),
        [LOG(2), 0.0],
        atol=1e-10,
    )


def test_disagreement_rate_by_hand():
    # Example 0: classes 0, 0, 1 differ in 2 of 3 pairs; 1: all alike; 2: all differ.
    classes = np.array([[0, 2, 0], [0, 2, 1], [1, 2, 2]])
    probs = 0.7 * np.eye(3)[classes] + 0.1
    np.testing.assert_allclose(metrics.disagreement_rate(probs), [2 / 3, 0.0, 1.0])


def test_variance_by_hand_and_as_a_difference_of_brier_scores():
    # Deviations of ±0.2 from 0.7 and 0.3: 0.04 for each of the two classes.
    probs = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    np.testing.assert_allclose(metrics.variance(probs), [0.08], rtol=1e-12)
    probs = random_probs(4, 30, 5)
    labels = random_labels(probs[0])
    of_members = np.mean([metrics.brier(member, labels) for member in probs])
    gain = of_members - metrics.brier(probs.mean(0), labels)
    np.testing.assert_allclose(metrics.variance(probs).mean(), gain, rtol=1e-10)


def test_pairwise_kl_is_the_mean_over_ordered_pairs():
    probs = random_probs(4, 20, 5)
    probs[0, 0] = [1.0, 0.0, 0.0, 0.0, 0.0]
    log_probs = np.log(probs + 1e-12)
    pairs = [
        (probs[i] * (log_probs[i] - log_probs[j])).sum(-1)
        for i, j in itertools.permutations(range(4), 2)
    ]
    np.testing.assert_allclose(metrics.pairwise_kl(probs), np.mean(pairs, 0), 1e-10)


DIVERSITY = [
    metrics.pairwise_kl,
    metrics.disagreement_rate,
    metrics.mutual_information,
    metrics.variance,
    metrics.predictive_entropy,
]


@pytest.mark.parametrize("num_members", [1, 2, 3])
def test_equal_members_have_no_diversity(num_members):
    probs = np.repeat(random_probs(1, 30, 6), num_members, axis=0)
    for diversity in DIVERSITY[:4]:
        np.testing.assert_allclose(diversity(probs), np.zeros(30), atol=1e-14)
    np.testing.assert_allclose(
        metrics.predictive_entropy(probs), metrics.predictive_entropy(probs[0])
    )


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_diversity_runs_on_jax_arrays_inside_jit(diversity):
    probs = random_probs(3, 7, 5)
    probs[0, 0] = [1.0, 0.0, 0.0, 0.0, 0.0]
    result = jax.jit(diversity)(jnp.asarray(probs, jnp.float32))
    assert isinstance(result, jax.Array) and result.shape == (7,)
    expected = diversity(probs)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diversity(probs[[2, 0, 1]]), expected, rtol=1e-12)


def test_pairwise_kl_has_a_gradient_at_zero_probabilities_and_one_member():
    gradient = jax.grad(lambda probs: metrics.pairwise_kl(probs).sum())
    assert np.isfinite(gradient(jnp.array([[[1.0, 0.0]], [[0.5, 0.5]]]))).all()
    np.testing.assert_array_equal(
        gradient(jnp.array([[[0.5, 0.5]]])), np.zeros((1, 1, 2))
    )


@pytest.mark.parametrize("shape", [(4,), (0, 4, 3), (2, 0, 3), (2, 2, 4, 3)])
def test_diversity_refuses_other_shapes(shape):
    for diversity in DIVERSITY:
        with pytest.raises(InputError, match=r"accepted: \[M, N, K\]"):
            diversity(np.ones(shape))
