"""The kernels as JAX functions, with gradients of any order.

Whoever calls them has asked `takes_convolution` or `takes_normalisation` first. Under
`vmap` they run for one element after another.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp.models.native import library

# A larger kernel leaves the second cache. With fewer outputs than so many, XLA's
# products are as fast then.
_LARGE_KERNEL = 2**18
_MANY_OUTPUTS = 2**12
# Of images, or several of them side by side (MIMO); these need not be multiples of 8.
_MAX_CHANNELS = 32
# The number of members whose channels may alternate.
INTERLEAVED = 4


def takes_convolution(
    x: Any, kernel_shape: Sequence[int], strides: int, interleaved: int = 1
) -> bool:
    """Whether there is a kernel for this convolution, and it is in use.

    Args:
      x: [N, H, W, C], an array or its shape and dtype.
      kernel_shape: [kh, kw, C, features], of each member.
      strides: along both H and W.
      interleaved: 1, or `INTERLEAVED` members whose channels alternate.
    """
    height, width, *own = kernel_shape
    channels, features = (interleaved * size for size in own)
    return (
        x.dtype == jnp.float32
        and all(isinstance(size, int) and size > 0 for size in x.shape)
        and (height, width) in ((1, 1), (3, 3))
        and strides in (1, 2)
        and features % 8 == 0
        and (channels % 8 == 0 or channels <= _MAX_CHANNELS)
        and (
            interleaved * math.prod(kernel_shape) <= _LARGE_KERNEL
            or math.prod(x.shape[:3]) >= _MANY_OUTPUTS * strides**2
        )
        and library.in_use()
    )


def takes_normalisation(x: Any) -> bool:
    """Whether there is a kernel for batch normalisation of x [..., C], and in use."""
    channels = x.shape[-1]
    return (
        x.dtype == jnp.float32
        and all(isinstance(size, int) and size > 0 for size in x.shape)
        and channels % 8 == 0
        and (channels % 16 == 0 or math.prod(x.shape[:-1]) % 2 == 0)
        and library.in_use()
    )


def _call(name: str, *args: jax.Array, shapes: Sequence[Sequence[int]], **attributes):
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call: Callable = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    return call(*args, **attributes)


# The three are products of two of x, kernels and y, and so the gradients of each are
# the others.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernels: jax.Array, strides: int) -> jax.Array:
    """2-D convolution, zero-padded by half the kernel, with a kernel for each member.

    Args:
      x: float32 [N, H, W, C]; row n is of member n mod M. Or [N, H, W, C * M] with M
        `INTERLEAVED`, where channel c * M + m is channel c of member m.
      kernels: float32 [M, kh, kw, C, features].
      strides: 1 or 2.

    Returns:
      [N, H', W', features], or [N, H', W', features * M].
    """
    size = [-(-length // strides) for length in x.shape[1:3]]
    interleaved = x.shape[-1] // kernels.shape[3]
    shape = (x.shape[0], *size, kernels.shape[-1] * interleaved)
    stride = np.int64(strides)
    return _call("edp_convolve", x, kernels, shapes=[shape], stride=stride)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _input_gradient(cotangent, kernels, strides, image_size):
    interleaved = cotangent.shape[-1] // kernels.shape[-1]
    shape = (cotangent.shape[0], *image_size, kernels.shape[3] * interleaved)
    stride = np.int64(strides)
    return _call(
        "edp_input_gradient", cotangent, kernels, shapes=[shape], stride=stride
    )[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(x, cotangent, strides, shape):
    stride = np.int64(strides)
    return _call("edp_kernel_gradient", x, cotangent, shapes=[shape], stride=stride)[0]


def _convolve_bwd(strides, residuals, cotangent):
    x, kernels = residuals
    return (
        _input_gradient(cotangent, kernels, strides, x.shape[1:3]),
        _kernel_gradient(x, cotangent, strides, kernels.shape),
    )


def _input_gradient_bwd(strides, image_size, residuals, x):
    del image_size
    cotangent, kernels = residuals
    return (
        convolve(x, kernels, strides),
        _kernel_gradient(x, cotangent, strides, kernels.shape),
    )


def _kernel_gradient_bwd(strides, shape, residuals, kernels):
    del shape
    x, cotangent = residuals
    return (
        _input_gradient(cotangent, kernels, strides, x.shape[1:3]),
        convolve(x, kernels, strides),
    )


def _keeping_both(fn):
    return lambda one, other, *static: (fn(one, other, *static), (one, other))


convolve.defvjp(_keeping_both(convolve), _convolve_bwd)
_input_gradient.defvjp(_keeping_both(_input_gradient), _input_gradient_bwd)
_kernel_gradient.defvjp(_keeping_both(_kernel_gradient), _kernel_gradient_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, slope: jax.Array, offset: jax.Array, relu: bool) -> jax.Array:
    """Computes x · slope + offset, per channel, and rectifies.

    Unlike XLA's loops, it reads slope and offset once, however they are computed.

    Args:
      x: float32 [..., C], as `takes_normalisation` has it.
      slope: float32 [C].
      offset: float32 [C].
      relu: whether max(·, 0) follows.
    """
    return _call("edp_affine", x, slope, offset, shapes=[x.shape], relu=np.bool_(relu))[
        0
    ]


def _affine_bwd(relu, residuals, cotangent):
    def fn(x, slope, offset):
        y = x * slope + offset
        return jax.nn.relu(y) if relu else y

    return jax.vjp(fn, *residuals)[1](cotangent)


affine.defvjp(lambda *args: (affine(*args), args[:3]), _affine_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, relu: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the moments of the batch, per channel, and rectifies.

    Args:
      x: float32 [..., C].
      scale: float32 [C].
      bias: float32 [C].
      epsilon: added to the variance.
      relu: whether max(·, 0) follows.

    Returns:
      scale · (x − mean) / √(var + epsilon) + bias, or its positive part; and the mean
      and the variance [C], which are constants to gradients.
    """
    return tuple(
        _call(
            "edp_normalise",
            x,
            scale,
            bias,
            shapes=[x.shape, scale.shape, scale.shape],
            relu=np.bool_(relu),
            epsilon=np.float32(epsilon),
        )
    )


def _normalise_fwd(x, scale, bias, epsilon, relu):
    y, mean, var = normalise(x, scale, bias, epsilon, relu)
    return (y, mean, var), (x, scale, bias, mean, var)


def _normalise_bwd(epsilon, relu, residuals, cotangents):
    return _normalise_gradient(*residuals, cotangents[0], epsilon, relu)


normalise.defvjp(_normalise_fwd, _normalise_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _normalise_gradient(x, scale, bias, mean, var, cotangent, epsilon, relu):
    return tuple(
        _call(
            "edp_normalise_gradient",
            *(x, scale, bias, mean, var, cotangent),
            shapes=[x.shape, scale.shape, scale.shape],
            relu=np.bool_(relu),
            epsilon=np.float32(epsilon),
        )
    )


def _as_written(x, scale, bias, mean, var, cotangent, epsilon, relu):
    """`_normalise_gradient` in XLA's operations, with the moments as functions of x."""
    del mean, var

    def fn(x, scale, bias):
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes)
        inverse = jax.lax.rsqrt(jnp.square(centred).mean(axes) + epsilon)
        y = scale * centred * inverse + bias
        return jax.nn.relu(y) if relu else y

    return jax.vjp(fn, x, scale, bias)[1](cotangent)


def _normalise_gradient_fwd(*args):
    return _normalise_gradient(*args), args[:6]


def _normalise_gradient_bwd(epsilon, relu, residuals, cotangents):
    fn = functools.partial(_as_written, epsilon=epsilon, relu=relu)
    return jax.vjp(fn, *residuals)[1](cotangents)


_normalise_gradient.defvjp(_normalise_gradient_fwd, _normalise_gradient_bwd)
