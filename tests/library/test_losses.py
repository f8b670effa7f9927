"""Losses against hand-computed values and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from edp import losses
from edp.errors import InputError

RNG = np.random.default_rng(0)


def test_cross_entropy_by_hand():
    # softmax([0, log 3]) = [1/4, 3/4].
    logits = jnp.array([[0.0, np.log(3.0)], [0.0, np.log(3.0)]])
    loss = losses.cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_allclose(loss, [np.log(4), np.log(4 / 3)], rtol=1e-6)


def test_cross_entropy_of_mixed_labels_by_hand():
    logits = jnp.array([[0.0, np.log(3.0)], [0.0, np.log(3.0)]])
    labels = jnp.array([[0.75, 0.25], [0.0, 1.0]])
    expected = [0.75 * np.log(4) + 0.25 * np.log(4 / 3), np.log(4 / 3)]
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), expected, 1e-6)
    # A class of probability zero adds nothing to the loss or its gradient.
    certain = jnp.array([[0.0, -jnp.inf]])
    grad = jax.grad(lambda z: losses.cross_entropy(z, jnp.eye(2)[:1]).sum())(certain)
    np.testing.assert_array_equal(grad, [[0.0, 0.0]])
    with pytest.raises(AssertionError):  # a column of integers is not a distribution
        losses.cross_entropy(logits, jnp.array([[0], [1]]))


def test_label_smoothing_by_hand():
    logits = jnp.array([[0.0, np.log(3.0)], [0.0, np.log(3.0)]])
    # With ε = 0.2 the targets are [0.9, 0.1] and [0.1, 0.9]; log p = -log [4, 4/3].
    far, near = np.log(4), np.log(4 / 3)
    expected = [0.9 * far + 0.1 * near, 0.1 * far + 0.9 * near]
    for labels in (jnp.array([0, 1]), jnp.eye(2)):
        loss = losses.cross_entropy(logits, labels, 0.2)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    with pytest.raises(InputError, match="labels has values"):
        losses.cross_entropy(logits, jnp.array([0, 2]), 0.2)


def test_cross_entropy_shares_labels_over_members():
    logits = jnp.asarray(RNG.normal(size=(3, 5, 4)), jnp.float32)
    labels = jnp.array([0, 1, 2, 3, 1])
    together = losses.cross_entropy(logits, labels)
    assert together.shape == (3, 5)
    for m in range(3):
        one = losses.cross_entropy(logits[m], labels)
        np.testing.assert_allclose(together[m], one, rtol=1e-6)


def test_cross_entropy_stays_finite_with_a_finite_gradient():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    loss, grad = jax.value_and_grad(
        lambda z: losses.cross_entropy(z, jnp.array([1])).sum()
    )(logits)
    assert loss == 2e4
    np.testing.assert_allclose(grad, [[1.0, -1.0, 0.0]])


def test_kl_divergence_by_hand_and_with_a_zero_probability():
    # KL([1/2, 1/2] || [1/4, 3/4]) = log 2 / 2 + log(2/3) / 2.
    p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    np.testing.assert_allclose(losses.kl_divergence(p, q), expected, rtol=1e-5)
    certain = jnp.array([0.0, -jnp.inf])
    np.testing.assert_allclose(losses.kl_divergence(certain, q), np.log(4), rtol=1e-6)
    grad = jax.grad(lambda q: losses.kl_divergence(certain, q))(q)
    np.testing.assert_allclose(grad, [-1.0, 0.0])


def test_mean_log_probs_is_the_log_of_the_mean_of_tempered_softmaxes():
    logits = RNG.normal(size=(4, 6, 3)) * 3
    expected = special.softmax(logits / 2.5, axis=-1).mean(0)
    got = losses.mean_log_probs(jnp.asarray(logits, jnp.float32), 2.5)
    np.testing.assert_allclose(np.exp(got), expected, rtol=1e-5)


def test_geometric_mean_log_probs_by_hand():
    # Geometric mean of (1/2, 1/2) and (1/5, 4/5): proportional to (1/√10, 2/√10).
    logits = jnp.log(jnp.array([[[0.5, 0.5]], [[0.2, 0.8]]])) + jnp.array(
        [[[3.0]], [[7]]]
    )
    got = np.exp(losses.geometric_mean_log_probs(logits))
    np.testing.assert_allclose(got, [[1 / 3, 2 / 3]], rtol=1e-5)
    # τ = 2: the square roots, normalised.
    tempered = np.exp(losses.geometric_mean_log_probs(logits, 2.0))
    expected = [[1 / (1 + np.sqrt(2)), np.sqrt(2) / (1 + np.sqrt(2))]]
    np.testing.assert_allclose(tempered, expected, rtol=1e-5)


def test_the_accuracy_of_labels_of_another_shape_is_refused():
    logits = jnp.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    labels = jnp.array([0, 2])
    np.testing.assert_array_equal(losses.accuracy(logits, labels), [True, False])
    for wrong in (labels[:, None], labels[:1], labels[None]):
        with pytest.raises(AssertionError):
            losses.accuracy(logits, wrong)


def test_distillation_by_hand():
    # τ = 2: the student's tempered prediction is softmax([0, log 3]).
    logits = 2 * jnp.array([[0.0, np.log(3.0)]])
    target = jnp.log(jnp.array([[0.5, 0.5]]))
    expected = 4 * (0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    got = losses.distillation(target, logits, 2.0)
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


def test_distillation_is_zero_where_the_student_agrees():
    logits = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    got = losses.distillation(losses.log_probs(logits, 3.0), logits, 3.0)
    np.testing.assert_allclose(got, 0, atol=1e-6)


def test_bfloat16_logits_are_taken_to_float32():
    logits = jnp.ones((2, 3), jnp.bfloat16)
    assert losses.log_probs(logits).dtype == jnp.float32


def test_labels_out_of_range_are_refused_where_their_values_are_known():
    logits = jnp.zeros((2, 3))
    for wrong in ([0, 3], [-1, 2], [255, 0]):
        for labels in (jnp.array(wrong), np.array(wrong)):
            with pytest.raises(InputError, match=r"labels has values .* 0 to 2"):
                losses.cross_entropy(logits, labels)
            with pytest.raises(InputError, match="labels has values"):
                jax.grad(lambda z, y=labels: losses.cross_entropy(z, y).sum())(logits)
    # Traced values cannot be checked: the loss of such a label is 0, as documented.
    loss = jax.jit(losses.cross_entropy)(logits, jnp.array([2, 3]))
    np.testing.assert_allclose(loss, [np.log(3), 0], rtol=1e-6)
    losses.check_labels(jnp.zeros(0, int), 3)
    losses.check_labels(-jnp.eye(3), 3)  # distributions are not checked


def test_logits_of_one_class_are_refused():
    for logits in (jnp.ones((3, 1)), jnp.ones((2, 3, 1))):
        with pytest.raises(
            InputError, match=r"3, 1\); accepted: .* at least 2 classes"
        ):
            losses.cross_entropy(logits, jnp.zeros(3, jnp.int32))
