"""Tests a compiled library of kernels beside XLA, before anything computes with it.

    python -m edp.models.native.selftest LIBRARY

Ends with an error, on small random inputs, where the two differ.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from edp.models import batch_norm, cpu_convolution
from edp.models.native import library, operations

# Members, images of each, image size, channels, features, taps, strides.
CONVOLUTIONS = (
    (1, 3, (9, 7), 16, 32, 3, 1),
    (2, 2, (8, 8), 8, 24, 3, 2),
    (3, 1, (5, 6), 24, 16, 1, 2),
    (1, 5, (4, 35), 3, 16, 3, 1),
    (2, 1, (6, 33), 48, 8, 1, 1),
    (2, 9, (9, 7), 16, 48, 3, 1),
)
# Rows, channels, ReLU.
LAYERS = ((6, 8, True), (35, 48, False), (4099, 16, True))
_TOLERANCE = 2e-5


def main(path: str) -> None:
    """Raises AssertionError where a kernel is wrong."""
    library.register(pathlib.Path(path))
    for convolved in CONVOLUTIONS:
        check_convolution(*convolved)
    for layer in LAYERS:
        check_normalisation(*layer)


def check_convolution(members, batch, size, channels, features, taps, strides):
    """The convolution and both of its gradients."""

    def expected(x, kernels):
        rows = [
            cpu_convolution.convolve(x[m::members], kernels[m], strides)
            for m in range(members)
        ]
        return jnp.stack(rows, axis=1).reshape(-1, *rows[0].shape[1:])

    x = _normal(0, members * batch, *size, channels)
    kernels = _normal(1, members, taps, taps, channels, features)
    own = functools.partial(operations.convolve, strides=strides)
    with cpu_convolution.plain_gradients():
        wanted = _with_gradients(expected, x, kernels)
    _compare(_with_gradients(own, x, kernels), wanted)


def check_normalisation(rows, channels, relu):
    """The normalisation, its moments and its gradients."""

    def expected(x, scale, bias):
        y, *moments = batch_norm.normalise(x, scale, bias, 1e-5)
        return jax.nn.relu(y) if relu else y, *moments

    own = functools.partial(operations.normalise, epsilon=1e-5, relu=relu)
    args = 1 + _normal(0, rows, channels), *_normal(1, 2, channels)
    _compare(own(*args), expected(*args))
    both = [_with_gradients(lambda *a, f=f: f(*a)[0], *args) for f in (own, expected)]
    _compare(*both)


def _normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _with_gradients(fn, *args):
    y, pull_back = jax.vjp(fn, *args)
    return y, *pull_back(jnp.asarray(_normal(2, *y.shape)))


def _compare(results, wanted):
    for one, other in zip(results, wanted, strict=True):
        error = np.abs(np.asarray(one) - other).max() / np.abs(other).max()
        assert error <= _TOLERANCE, f"a kernel is off by {error:.1e}"


if __name__ == "__main__":
    main(sys.argv[1])
