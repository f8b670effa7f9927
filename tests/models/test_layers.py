"""Convolution and dense layer: initialisation, and outputs by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from small_networks import build, quick_jit, shapes

from edp.models import rank_one_mask
from edp.models.layers import Conv, Dense, convolve


def test_kernels_start_he_normal_by_fan_in():
    init = quick_jit(Conv(64).init)
    variables = init(jax.random.key(0), np.zeros((1, 4, 4, 32), np.float32))
    kernel = np.array(variables["params"]["kernel"])
    assert set(variables["params"]) == {"kernel"}
    assert kernel.shape == (3, 3, 32, 64)
    deviation = np.sqrt(2 / (3 * 3 * 32))
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.05 * deviation)
    assert np.abs(kernel).max() > 2.5 * deviation  # not truncated


def test_factors_start_as_asked():
    def start(factor_init):
        layer = Dense(64, num_members=64, factor_init=factor_init)
        init = quick_jit(layer.init)
        variables = init(jax.random.key(0), np.zeros((64, 64), np.float32))
        return jax.device_get(variables["params"])

    params = start("normal")
    for factor in (params["r"], params["s"]):
        np.testing.assert_allclose(factor.mean(), 1, atol=0.03)
        np.testing.assert_allclose(factor.std(), 0.5, atol=0.03)
    assert not np.allclose(params["r"], params["s"])
    params = start("sign")
    for factor in (params["r"], params["s"]):
        assert factor.dtype == jnp.float32
        np.testing.assert_array_equal(np.unique(factor), [-1, 1])
        np.testing.assert_allclose(factor.mean(), 0, atol=0.1)
    params = start("ones")
    assert (params["r"] == 1).all() and (params["s"] == 1).all()
    np.testing.assert_array_equal(params["bias"], np.zeros((64, 64)))


def test_convolution_pads_half_a_kernel_on_every_side():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    y = convolve(x, jnp.ones((3, 3, 1, 1)), strides=2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[10, 24], [51, 90]])
    y = convolve(x, jnp.ones((1, 1, 1, 1)), strides=2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [8, 10]])
    assert convolve(x, jnp.ones((7, 7, 1, 1)), strides=1).shape == (1, 4, 4, 1)


def test_dense_multiplies_adds_and_folds_per_member():
    params = {
        "kernel": np.array([[1.0, 2.0]]),
        "r": np.array([[1.0], [3.0]]),
        "s": np.array([[1.0, 1.0], [1.0, 10.0]]),
        "bias": np.array([[0.0, 0.0], [0.5, 0.0]]),
    }
    rows = np.array([[1.0], [1.0], [2.0], [2.0]])  # Image, member: 00, 01, 10, 11.
    y = Dense(2, num_members=2).apply({"params": params}, rows)
    np.testing.assert_allclose(y, [[1, 2], [3.5, 60], [2, 4], [6.5, 120]])


def test_rank_one_mask_marks_the_factors_alone():
    params = shapes(build("convnet", width=4, num_members=2))["params"]
    mask = rank_one_mask(params)
    chex.assert_trees_all_equal_structs(mask, params)
    assert mask["head"] == {"kernel": False, "bias": False, "r": True, "s": True}
    assert mask["conv1"] == {"kernel": False, "r": True, "s": True}
    assert mask["norm1"] == {"scale": False, "bias": False}
    assert not any(jax.tree.leaves(rank_one_mask(shapes(build("convnet"))["params"])))
