"""Tests of labels that are distributions over the classes, in every kind of student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_students import (
    LABEL,
    B,
    K,
    assert_close,
    create,
    initial,
    make_batch,
    teachers,
)

from edp import losses, students


@pytest.mark.parametrize("kind", sorted(students.STUDENTS))
def test_labels_may_be_distributions(kind):
    student = create(kind, dirichlet_loss="mle", factor_init="normal")
    variables = initial(student)

    def loss(label):
        batch = make_batch(teachers())._replace(label=label)
        total, (_, metrics) = student.loss(variables, batch, jax.random.key(2))
        return total, metrics

    certain = jax.nn.one_hot(LABEL, K)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(loss, certain))
    assert shapes == jax.tree.map(jnp.shape, jax.eval_shape(loss, LABEL))
    assert shapes[0] == (B,)


@pytest.mark.parametrize(
    "kind",
    ["single", "batch_ensemble", "latent_batch_ensemble", "hydra", "mimo", "packed"],
)
def test_label_smoothing_is_a_mixture_with_the_uniform_distribution(kind):
    plain = create(kind, factor_init="normal")
    smooth = create(kind, factor_init="normal", label_smoothing=0.2)
    variables = initial(plain)
    batch = make_batch(teachers())
    mixed = batch._replace(label=0.8 * jax.nn.one_hot(LABEL, K) + 0.2 / K)
    expected, (_, terms) = plain.loss(variables, mixed, jax.random.key(2))
    found, (_, found_terms) = smooth.loss(variables, batch, jax.random.key(2))
    assert_close(found, expected)
    without, _ = plain.loss(variables, batch, jax.random.key(2))
    assert np.abs(found - without).max() > 1e-3
    assert_close(found_terms["distillation_loss"], terms["distillation_loss"])


def test_accuracy_on_distributions_by_hand():
    logits = jnp.array([[[1.0, 2.0, 0.0]] * 2, [[3.0, 2.0, 0.0]] * 2])  # 1; then 0
    labels = jnp.array([[0.3, 0.6, 0.1], [0.0, 0.0, 1.0]])
    found = losses.accuracy(logits, labels)
    np.testing.assert_allclose(found, [[0.6, 0.0], [0.3, 0.0]])
    found = losses.accuracy(logits, jnp.array([1, 0]))
    np.testing.assert_array_equal(found, [[True, False], [False, True]])
