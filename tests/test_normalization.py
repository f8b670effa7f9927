"""Batch normalisation's own gradient is that of its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from edp.models.normalization import BatchNorm, normalise

KEYS = jax.random.split(jax.random.key(0), 4)
X = 3 + 2 * jax.random.normal(KEYS[0], (4, 3, 2, 5))
SCALE, BIAS = jax.random.normal(KEYS[1], (2, 5))
COTANGENT = jax.random.normal(KEYS[2], X.shape)


def as_written(x, scale, bias, epsilon):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return scale * (x - mean) / jnp.sqrt(var + epsilon) + bias, mean, var


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_gradient_is_that_of_the_formula(epsilon):
    def gradients(fn):
        y, pull_back = jax.vjp(lambda *args: fn(*args, epsilon)[0], X, SCALE, BIAS)
        return y, *pull_back(COTANGENT)

    got, expected = gradients(normalise), gradients(as_written)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    got, expected = (f(X, SCALE, BIAS, epsilon) for f in (normalise, as_written))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_is_flax_batch_normalisation():
    own = BatchNorm(use_running_average=False)
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = own.init(KEYS[3], X)
    assert jax.tree.structure(variables) == jax.tree.structure(flax.init(KEYS[3], X))
    variables["params"].update(scale=SCALE, bias=BIAS)

    def results(module):
        y, state = module.apply(variables, X, mutable=["batch_stats"])
        evaluating = module.clone(use_running_average=True)
        return y, evaluating.apply({**variables, **state}, X), *jax.tree.leaves(state)

    for a, b in zip(results(own), results(flax), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16_has_moments_in_float32():
    x = jnp.full((256, 256, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(129)
    one = jnp.ones(1)
    y, mean, var = normalise(x, one, one, 1e-5)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, *2 * [jnp.float32])
    np.testing.assert_allclose(mean, [1 + 128 / 65536], rtol=1e-6)
    gradient = jax.grad(lambda x: normalise(x, one, one, 1e-5)[0][0, 0, 0])(x)
    assert gradient.dtype == jnp.bfloat16


def test_a_constant_batch_is_its_bias_and_moves_nothing():
    x = jnp.full((8, 2, 2, 5), 1 / 3)
    y, pull_back = jax.vjp(lambda x: normalise(x, SCALE, BIAS, 1e-5)[0], x)
    np.testing.assert_allclose(y, jnp.broadcast_to(BIAS, x.shape), atol=1e-3)
    (gradient,) = pull_back(jnp.ones_like(x))
    np.testing.assert_allclose(gradient, jnp.zeros_like(x), atol=1e-3)
