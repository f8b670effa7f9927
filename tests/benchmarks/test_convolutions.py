"""Convolutions are timed with each kind of kernels."""

import jax
import jax.numpy as jnp

from benchmarks import convolutions
from edp.models import native


def test_every_pass_of_a_layer_has_a_rate():
    layer = convolutions.Layer(4, 8, 16, strides=2)
    for found in (
        convolutions.rates(layer, images=2, calls=1),
        _without_kernels(layer),
    ):
        assert list(found) == list(convolutions.PASSES)
        assert min(found.values()) > 0


def _without_kernels(layer):
    with native.disabled():
        return convolutions.rates(layer, images=2, calls=1)


def test_our_kernels_compute_every_layer():
    for layer in convolutions.LAYERS:
        shape = (128, layer.size, layer.size, layer.channels)
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        kernel = (layer.taps, layer.taps, layer.channels, layer.features)
        taken = native.takes_convolution(x, kernel, layer.strides)
        assert taken == native.in_use()
