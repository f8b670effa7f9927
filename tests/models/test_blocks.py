"""Residual blocks: shortcuts, strides and initialisation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from small_networks import build, images, quick_jit, random_variables

from edp.models.batch_norm import BatchNorm
from edp.models.dropout import Dropout
from edp.models.layers import Conv
from edp.models.resnet import identity_shortcut
from edp.models.resnet50 import BottleneckBlock
from edp.models.wide_resnet import PreActivationBlock

no_drop = partial(Dropout, 0.0, False)


def test_identity_shortcut_subsamples_and_pads_channels_with_zeros():
    x = jnp.arange(18.0).reshape(1, 3, 3, 2)
    y = identity_shortcut(x, features=3, strides=2)
    np.testing.assert_array_equal(
        y[0], [[[0, 1, 0], [4, 5, 0]], [[12, 13, 0], [16, 17, 0]]]
    )
    np.testing.assert_array_equal(identity_shortcut(x, features=2, strides=1), x)


def test_wide_block_projects_its_raw_input():
    x = images(size=4, channels=2) - 0.5

    def with_silent_residual(features, strides):
        norm = partial(BatchNorm, use_running_average=True)
        block = PreActivationBlock(Conv, norm, no_drop, features, strides)
        variables = random_variables(jax.eval_shape(block.init, jax.random.key(0), x))
        params = variables["params"]
        params["conv2"]["kernel"] = np.zeros_like(params["conv2"]["kernel"])
        return quick_jit(block.apply)(variables, x), params

    y, params = with_silent_residual(features=4, strides=2)
    projection = params["shortcut"]["kernel"][0, 0]
    np.testing.assert_allclose(y, x[:, ::2, ::2] @ projection, atol=1e-6)
    y, params = with_silent_residual(features=2, strides=1)
    assert "shortcut" not in params
    np.testing.assert_array_equal(y, x)


def test_bottleneck_has_its_stride_in_the_3x3():
    norm = partial(BatchNorm, use_running_average=True)
    block = BottleneckBlock(Conv, norm, no_drop, 2, 2, zero_init_residual=False)
    x = jnp.zeros((1, 8, 8, 4))
    apply = partial(block.apply, capture_intermediates=True)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    assert variables["params"]["conv2"]["kernel"].shape == (3, 3, 2, 2)
    state = jax.eval_shape(apply, variables, x)[1]["intermediates"]
    assert state["conv1"]["__call__"][0].shape == (1, 8, 8, 2)
    assert state["conv2"]["__call__"][0].shape == (1, 4, 4, 2)


def test_zero_init_residual_starts_each_block_as_its_shortcut():
    x = images(size=4, channels=8) - 0.5
    norm = partial(BatchNorm, use_running_average=True)

    def start(zero_init_residual):
        block = BottleneckBlock(Conv, norm, no_drop, 2, 1, zero_init_residual)
        return quick_jit(block.init_with_output)(jax.random.key(0), x)[0]

    np.testing.assert_array_equal(start(True), np.maximum(x, 0))
    assert not np.allclose(start(False), np.maximum(x, 0), atol=1e-2)
    assert build("resnet50", zero_init_residual=True).zero_init_residual
    assert not build("resnet50").zero_init_residual
