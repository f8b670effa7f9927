"""Gradients of convolutions on CPU against those of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp.models import cpu_convolution

# Image size, kernel size, stride.
CASES = [
    (8, 3, 1),
    (9, 5, 1),
    (8, 2, 1),
    (8, 3, 2),
    (9, 3, 2),
    (8, 1, 1),
    (8, 1, 2),
    (7, 1, 2),
    (9, 7, 2),
]


def operands(size, taps):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (6, size, size, 3))
    return x, jax.random.normal(keys[1], (taps, taps, 3, 5)), keys[2]


def gradients(convolve, x, kernel, strides, key):
    y, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, strides), x, kernel)
    return y, *pull_back(jax.random.normal(key, y.shape))


@pytest.mark.parametrize("few_channels", [0, 16])
@pytest.mark.parametrize("images_per_block", [1, 4])
@pytest.mark.parametrize(("size", "taps", "strides"), CASES)
def test_gradients(size, taps, strides, images_per_block, few_channels, monkeypatch):
    x, kernel, key = operands(size, taps)
    # 4 does not divide the 6 images; the next smaller divisor is taken.
    elements = images_per_block * x[0].size
    monkeypatch.setattr(cpu_convolution, "_BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(cpu_convolution, "_FEW_CHANNELS", few_channels)
    expected = gradients(cpu_convolution._forward, x, kernel, strides, key)
    got = gradients(cpu_convolution._convolve_cpu, x, kernel, strides, key)
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("few_channels", [0, 16])
def test_the_sum_over_blocks_is_not_rounded_to_bfloat16(few_channels, monkeypatch):
    monkeypatch.setattr(cpu_convolution, "_BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(cpu_convolution, "_FEW_CHANNELS", few_channels)
    x, kernel = jnp.ones((512, 1, 1, 1), "bfloat16"), jnp.ones((1, 1, 1, 1), "bfloat16")
    y, pull_back = jax.vjp(lambda k: cpu_convolution._convolve_cpu(x, k, 1), kernel)
    assert pull_back(jnp.ones_like(y))[0] == 512


def test_gradients_under_vmap_and_in_a_loop():
    x, kernel, key = operands(8, 3)
    kernels = jnp.stack([kernel, 2 * kernel, kernel + 1])

    def kernel_gradient(convolve):
        return lambda kernel: gradients(convolve, x, kernel, 2, key)[1:]

    expected = jax.vmap(kernel_gradient(cpu_convolution._forward))(kernels)
    for mapped in (jax.vmap, lambda fn: lambda xs: jax.lax.map(fn, xs)):
        got = mapped(kernel_gradient(cpu_convolution._convolve_cpu))(kernels)
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_no_convolution_is_left_in_an_order_that_a_cpu_is_slow_at():
    """Also inside a loop, where XLA does not transpose."""
    x, kernel, key = operands(8, 3)

    def in_a_loop(kernels):
        return jax.lax.map(
            lambda kernel: gradients(cpu_convolution.convolve, x, kernel, 2, key),
            kernels,
        )

    compiled = jax.jit(in_a_loop).lower(kernel[None].repeat(2, 0)).compile()
    text = compiled.as_text()
    labels = [
        line.split("dim_labels=")[1].split(",")[0]
        for line in text.splitlines()
        if "dim_labels=" in line
    ]
    assert "lhs_dilate" not in text
    assert len(labels) >= 3
    assert set(labels) == {"b01f_01io->b01f"}
