"""Batch normalisation: values by hand, and its gradient against the formula."""

from functools import partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from small_networks import quick_jit

from edp import models
from edp.errors import InputError
from edp.models.batch_norm import BatchNorm, normalise

KEYS = jax.random.split(jax.random.key(0), 4)
X = 3 + 2 * jax.random.normal(KEYS[0], (4, 3, 2, 5))
SCALE, BIAS = jax.random.normal(KEYS[1], (2, 5))
COTANGENT = jax.random.normal(KEYS[2], X.shape)


def as_written(x, scale, bias, epsilon):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return scale * (x - mean) / jnp.sqrt(var + epsilon) + bias, mean, var


def test_batch_norm_momentum_and_epsilon_by_hand():
    params = {"scale": np.array([2.0]), "bias": np.array([1.0])}
    stats = {"mean": np.array([10.0]), "var": np.array([3.0])}
    variables = {"params": params, "batch_stats": stats}
    x = np.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)  # Mean 4, variance 5.
    train = BatchNorm(use_running_average=False)
    train = quick_jit(partial(train.apply, mutable=["batch_stats"]))
    y, state = train(variables, x)
    np.testing.assert_allclose(state["batch_stats"]["mean"], [9.4], rtol=1e-6)
    np.testing.assert_allclose(state["batch_stats"]["var"], [3.2], rtol=1e-6)
    np.testing.assert_allclose(y[0, 0, 0, 0], 1 - 2 * 3 / np.sqrt(5), rtol=1e-5)
    # A variance of 9e-6 is about as large as the epsilon of 1e-5.
    x = np.array([-0.003, 0.003]).reshape(2, 1, 1, 1)
    y, _ = train(variables, x)
    np.testing.assert_allclose(y[1, 0, 0, 0], 1 + 2 * 0.003 / 1.9e-5**0.5, rtol=1e-5)
    y = BatchNorm(use_running_average=True).apply(variables, np.array([[4.0]]))
    np.testing.assert_allclose(y, [[1 - 2 * 6 / np.sqrt(3)]], rtol=1e-5)


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


def in_training(groups, x):
    """Returns output, updated statistics and the pull-back of the layer."""
    stats = {"mean": jnp.arange(5.0), "var": jnp.full(5, 2.0)}

    def apply(x, scale, bias):
        params = {"scale": scale, "bias": bias}
        return BatchNorm(use_running_average=False, groups=groups).apply(
            {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
        )

    y, pull_back, state = jax.vjp(apply, x, SCALE, BIAS, has_aux=True)
    return y, state["batch_stats"], pull_back


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_parts_normalised_by_themselves(groups):
    y, stats, pull_back = in_training(groups, X)
    x_gradient, *gradients = pull_back(COTANGENT)
    parts = [in_training(None, part) for part in jnp.split(X, groups)]
    pulled = [
        part[2](cotangent)
        for part, cotangent in zip(parts, jnp.split(COTANGENT, groups), strict=True)
    ]
    expected = (
        jnp.concatenate([part[0] for part in parts]),
        jnp.concatenate([own[0] for own in pulled]),
        *(sum(own) for own in list(zip(*pulled, strict=True))[1:]),
    )
    for a, b in zip((y, x_gradient, *gradients), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    for name in ("mean", "var"):
        updates = [part[1][name] for part in parts]
        np.testing.assert_allclose(stats[name], sum(updates) / groups, rtol=1e-6)
    if groups > 1:  # not normalised over the whole batch
        assert not np.allclose(y, in_training(None, X)[0], atol=1e-2)


def test_statistics_move_to_the_mean_of_the_groups_moments():
    x = jnp.repeat(jnp.array([1.0, 3.0, 10.0, 18.0]), 5).reshape(4, 1, 1, 5)
    _, stats, _ = in_training(2, x)
    # Means 2 and 14, variances 1 and 16.
    np.testing.assert_allclose(stats["mean"], 0.9 * np.arange(5) + 0.8, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], np.full(5, 1.8 + 0.85), rtol=1e-6)


@pytest.mark.parametrize("num_members", [None, 3])
def test_a_group_is_images_with_all_their_members(num_members):
    def build(groups):
        config = {"name": "convnet", "width": 2, "batchnorm_groups": groups}
        return models.create_model(
            config, num_classes=3, mean=(0.5,), std=(0.25,), num_members=num_members
        )

    images = jax.random.uniform(KEYS[0], (6, 4, 4, 1))
    variables = compiled.init(build(2), KEYS[1], images[:1])

    def train(groups, images):
        apply = jax.jit(build(groups).apply, static_argnames=("train", "mutable"))
        return apply(variables, images, train=True, mutable="batch_stats")[0]

    parts = [train(None, part) for part in jnp.split(images, 2)]
    expected = jnp.concatenate(parts, axis=-2)
    np.testing.assert_allclose(train(2, images), expected, rtol=1e-5, atol=1e-5)
    # Six divides the eighteen rows of the members, not the four images.
    with pytest.raises(InputError, match=r"model\.batchnorm_groups=6 .* batch_size=4"):
        train(6, images[:4])
    evaluated = compiled.logits(build(6), variables, images[:4])
    assert evaluated.shape[-2:] == (4, 3)
