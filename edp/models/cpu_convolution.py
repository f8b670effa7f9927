"""2-D convolution with gradients that use the fast kernels of a CPU.

XLA's own gradients of convolutions are slow on CPU for these reasons, measured on
2 cores (AVX-512 and AVX2 machines) with 256 images and 16 to 64 channels:

* The weight gradient is a convolution whose kernel is as large as the image and
  whose "channels" are the batch. It ran at a quarter to 40% of the rate of the
  forward pass, and slower once the batch exceeded the cache. Summed over blocks of
  the batch that fit the cache, it ran 1.6 to 3.6 times faster.
* Only operands in one order of dimensions reach the fast kernels. XLA transposes
  them at the top level of a program but not inside loops, where the weight gradient
  ran at least fifty times slower. Here the operands are transposed explicitly, so
  loops over blocks, members or steps are as fast as unrolled code.
* With few channels that transposition costs as much as the convolution. A matrix
  product over positions, of rows shifted along the kernel's height and cotangents
  shifted along its width, needs none: 75 instead of 55 GFLOP/s with 16 channels (the
  same with 32, and fewer with 64).
* The input gradient of a strided convolution dilates its input, for which there is
  no fast kernel: it took 80 ms where neighbouring layers took 20.

Where the native kernels (`edp.models.native`) apply, they compute all passes instead.
Other backends use XLA's gradients, and so do several CPU devices: a loop over blocks
of a sharded batch would communicate between them.
"""

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from edp.models import native

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Elements of the input in one block of the weight gradient: half a megabyte of
# float32, so that it and the output's cotangent stay in a core's cache.
_BLOCK_ELEMENTS = 131_072

# Up to so many channels, in or out, the weight gradient is a matrix product.
_FEW_CHANNELS = 16

# Known to `jax.jit`, which traces anew where it differs.
_ours = jax.make_user_context(True)


@contextlib.contextmanager
def plain_gradients() -> Iterator[None]:
    """Inside, programs are traced with XLA's gradients, as on other backends.

    For what reads a program without running it, and is to find the same everywhere.
    """
    with _ours(False), native.disabled():
        yield


def convolve(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """2-D convolution, zero-padded by kernel // 2 on every side.

    Every convolution of every model is computed here. With a stride this differs
    from 'SAME', which pads an even size less at its beginning than at its end.

    Args:
        x: [N, H, W, C].
        kernel: [kh, kw, C, features].
        strides: the stride along both H and W.

    Returns:
        [N, H', W', features] with H' = (H + 2·(kh // 2) - kh) // strides + 1.
    """
    if native.takes_convolution(x, kernel.shape, strides):
        return native.convolve(x, kernel[None], strides)
    if _ours.value and jax.default_backend() == "cpu" and jax.device_count() == 1:
        return _convolve_cpu(x, kernel, strides)
    return _forward(x, kernel, strides)


def _forward(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=[(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=_DIMENSIONS,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_cpu(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    return _forward(x, kernel, strides)


def _convolve_fwd(x, kernel, strides):
    return _forward(x, kernel, strides), (x, kernel)


def _convolve_bwd(strides, residuals, cotangent):
    x, kernel = residuals
    size = kernel.shape[:2]
    return (
        _input_gradient(cotangent, kernel, strides, x.shape[1:3]),
        _kernel_gradient(x, cotangent, strides, size),
    )


_convolve_cpu.defvjp(_convolve_fwd, _convolve_bwd)


def _input_gradient(cotangent, kernel, strides, image_size):
    """The cotangent, spread out by the stride, convolved with the flipped kernel."""
    padding = [(0, 0, 0)]
    for size, taps, out in zip(
        image_size, kernel.shape[:2], cotangent.shape[1:3], strict=True
    ):
        before = taps - 1 - taps // 2
        spread = (out - 1) * strides + 1
        padding.append((before, size + taps - 1 - spread - before, strides - 1))
    padding.append((0, 0, 0))
    spread = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), padding)
    if strides > 1:
        # Or XLA would make one convolution of both, which is a slow one.
        spread = lax.optimization_barrier(spread)
    flipped = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    return lax.conv_general_dilated(
        spread, flipped, (1, 1), "VALID", dimension_numbers=_DIMENSIONS
    )


def _kernel_gradient(x, cotangent, strides, kernel_size):
    few = min(x.shape[-1], cotangent.shape[-1]) <= _FEW_CHANNELS
    if few and strides == 1 and all(taps % 2 for taps in kernel_size):
        block_gradient = _block_product
    else:
        block_gradient = functools.partial(_block_gradient, strides=strides)
    num_images = x.shape[0]
    block = max(1, min(num_images, _BLOCK_ELEMENTS // x[0].size))
    while num_images % block:
        block -= 1
    if block == num_images:
        return block_gradient(x, cotangent, kernel_size=kernel_size)

    def add_block(total, images):
        own = block_gradient(*images, kernel_size=kernel_size)
        return total + own.astype(total.dtype), None

    blocks = [a.reshape(-1, block, *a.shape[1:]) for a in (x, cotangent)]
    shape = (*kernel_size, x.shape[-1], cotangent.shape[-1])
    # A sum in bfloat16 would stop at 256 times its terms.
    zeros = jnp.zeros(shape, jnp.promote_types(x.dtype, jnp.float32))
    return lax.scan(add_block, zeros, tuple(blocks))[0].astype(x.dtype)


def _block_product(x, cotangent, kernel_size):
    """[kh·C, positions] times [positions, kw·features], for a stride of 1."""
    (height, width), (above, left) = x.shape[1:3], (taps // 2 for taps in kernel_size)
    rows = jnp.pad(x, ((0, 0), (above, above), (0, 0), (0, 0)))
    rows = [rows[:, i : i + height] for i in range(kernel_size[0])]
    columns = jnp.pad(cotangent, ((0, 0), (0, 0), (left, left), (0, 0)))
    columns = [columns[:, :, j : j + width] for j in reversed(range(kernel_size[1]))]
    # Written to memory: a product that reads through the shifts is slow.
    rows, columns = lax.optimization_barrier(
        (jnp.concatenate(rows, axis=-1), jnp.concatenate(columns, axis=-1))
    )
    positions = ((0, 1, 2), (0, 1, 2))
    product = lax.dot_general(rows, columns, (positions, ((), ())))
    shape = (kernel_size[0], x.shape[-1], kernel_size[1], cotangent.shape[-1])
    return jnp.swapaxes(product.reshape(shape), 1, 2)


def _block_gradient(x, cotangent, strides, kernel_size):
    """x convolved with its cotangent, the images summed over as channels."""
    # Behind a barrier, so that XLA does not fold the transpositions back into a
    # convolution of other dimension numbers.
    images, taps = lax.optimization_barrier(
        (jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(cotangent, (1, 2, 0, 3)))
    )
    padding = []
    for size, tap, out in zip(
        x.shape[1:3], kernel_size, cotangent.shape[1:3], strict=True
    ):
        before = tap // 2
        padding.append((before, tap + (out - 1) * strides - size - before))
    gradient = lax.conv_general_dilated(
        images,
        taps,
        window_strides=(1, 1),
        padding=padding,
        rhs_dilation=(strides, strides),
        dimension_numbers=_DIMENSIONS,
    )
    return jnp.transpose(gradient, (1, 2, 0, 3))
