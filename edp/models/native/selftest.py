"""Tests a compiled library of kernels beside NumPy, before anything computes with it.

    python -m edp.models.native.selftest LIBRARY

Ends with an error, on small random inputs, where the two differ. One program calls all
kernels: compiling one for each took five times as long.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from edp.models.native import library, operations

# Members, images of each, image size, channels, features, taps, strides.
CONVOLUTIONS = (
    (1, 3, (9, 7), 16, 32, 3, 1),
    (2, 2, (8, 8), 8, 24, 3, 2),
    (3, 1, (5, 6), 24, 16, 1, 2),
    (2, 3, (8, 7), 40, 56, 3, 2),
    (1, 5, (4, 35), 3, 16, 3, 1),
    (2, 1, (6, 33), 48, 8, 1, 1),
    (2, 9, (9, 7), 16, 48, 3, 1),
)
# The same of members whose channels alternate.
INTERLEAVED = (
    (4, 33, (4, 5), 8, 4, 3, 1),
    (4, 2, (5, 6), 3, 6, 3, 2),
    (4, 2, (5, 6), 16, 32, 3, 2),
)
# Rows, channels, ReLU.
LAYERS = ((6, 8, True), (35, 48, False), (4099, 16, True))
_TOLERANCE = 2e-5
_EPSILON = 1e-5


class Case(NamedTuple):
    """Kernels, their arguments, and the results expected of them, in float64."""

    fn: Callable[..., Sequence[jax.Array]]
    args: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]


def main(path: str) -> None:
    """Raises AssertionError where a kernel is wrong."""
    library.register(pathlib.Path(path))
    cases = [convolution(*shape) for shape in CONVOLUTIONS]
    cases += [interleaved(*shape) for shape in INTERLEAVED]
    check(cases + [layer(*shape) for shape in LAYERS])


def check(cases: Iterable[Case]) -> None:
    """Computes all cases in one program.

    Raises:
      AssertionError: where a result differs from the expected one.
    """
    fns, args, expected = zip(*cases, strict=True)

    @jax.jit
    def compute(args):
        return [fn(*own) for fn, own in zip(fns, args, strict=True)]

    for results, wanted in zip(compute(args), expected, strict=True):
        for one, other in zip(results, wanted, strict=True):
            error = np.abs(np.asarray(one) - other).max() / np.abs(other).max()
            assert error <= _TOLERANCE, f"a kernel is off by {error:.1e}"


def convolution(members, batch, size, channels, features, taps, strides) -> Case:
    """Returns a convolution with both of its gradients."""
    x = _normal(0, members * batch, *size, channels)
    kernels = _normal(1, members, taps, taps, channels, features)
    own = kernels[np.arange(len(x)) % members].astype(np.float64)  # of each image
    pad, (height, width) = taps // 2, size
    wide = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y = np.zeros((len(x), -(-height // strides), -(-width // strides), features))

    def of_each_tap(padded):
        """Yields the indices of a tap, and what of the padded images it reads."""
        for i, j in np.ndindex(taps, taps):
            rows = slice(i, i + strides * y.shape[1], strides)
            columns = slice(j, j + strides * y.shape[2], strides)
            yield i, j, padded[:, rows, columns]

    for i, j, read in of_each_tap(wide):
        y += np.einsum("nhwc,ncf->nhwf", read, own[:, i, j])
    g = _normal(2, *y.shape)
    dx, dk = np.zeros_like(wide), np.zeros(kernels.shape)
    for i, j, read in of_each_tap(dx):  # a view
        read += np.einsum("nhwf,ncf->nhwc", g, own[:, i, j])
    for i, j, read in of_each_tap(wide):
        of_images = np.einsum("nhwc,nhwf->ncf", read, g.astype(np.float64))
        dk[:, i, j] = of_images.reshape(batch, members, channels, features).sum(0)
    dx = dx[:, pad : pad + height, pad : pad + width]
    convolve = functools.partial(operations.convolve, strides=strides)
    return Case(_with_gradients(convolve), (x, kernels, g), (y, dx, dk))


def interleaved(members, batch, *shape) -> Case:
    """Returns `convolution` with its members side by side on the channels."""
    fn, (x, kernels, g), (y, dx, dk) = convolution(members, batch, *shape)

    def alternate(rows):
        apart = rows.reshape(batch, members, *rows.shape[1:])
        return np.moveaxis(apart, 1, -1).reshape(batch, *rows.shape[1:3], -1)

    x, g, y, dx = map(alternate, (x, g, y, dx))
    return Case(fn, (x, kernels, g), (y, dx, dk))


def layer(rows, channels, relu) -> Case:
    """Returns a normalisation with its moments and its gradients."""
    x, scale, bias = 1 + _normal(0, rows, channels), *_normal(1, 2, channels)
    g = _normal(2, rows, channels)
    wide = x.astype(np.float64)
    mean, var = wide.mean(0), wide.var(0)
    inverse = 1 / np.sqrt(var + _EPSILON)
    unit = (wide - mean) * inverse
    y = scale * unit + bias
    passed = g * (y > 0) if relu else g
    dscale, dbias = (passed * unit).sum(0), passed.sum(0)
    dx = scale * inverse * (passed - dbias / rows - unit * dscale / rows)

    def fn(x, scale, bias, g):
        def normalise(*args):
            return operations.normalise(*args, epsilon=_EPSILON, relu=relu)

        moments = normalise(x, scale, bias)[1:]
        first = _with_gradients(lambda *args: normalise(*args)[0])
        affine = operations.affine(x, scale, bias, relu)
        return *first(x, scale, bias, g), *moments, affine

    expected = [y, dx, dscale, dbias, mean, var, scale * wide + bias]
    if relu:
        expected[0], expected[-1] = np.maximum(y, 0), np.maximum(expected[-1], 0)
    return Case(fn, (x, scale, bias, g), expected)


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _with_gradients(fn: Callable) -> Callable[..., Any]:
    """Returns (arguments, cotangent) -> the result and the arguments' gradients."""

    def both(*args):
        *args, cotangent = args
        y, pull_back = jax.vjp(fn, *args)
        return y, *pull_back(cotangent)

    return both


if __name__ == "__main__":
    main(sys.argv[1])
