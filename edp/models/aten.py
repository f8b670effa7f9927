"""Core ATen operators of PyTorch in JAX, by name.

`torch.export` writes any module as a graph of these
(https://docs.pytorch.org/docs/stable/torch.compiler_ir.html). A new one is a function
here: its arguments are those of the ATen operator, its tensors are JAX arrays.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _identity(x, *args, **kwargs):
    return x


def _add(x, y, alpha=1):
    return x + (y if alpha == 1 else alpha * y)


def _sub(x, y, alpha=1):
    return x - (y if alpha == 1 else alpha * y)


def _elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    negative = alpha * jnp.expm1(input_scale * jnp.minimum(x, 0))
    return scale * jnp.where(x > 0, x, negative)


def _softplus(x, beta=1.0, threshold=20.0):
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


def _gelu(x, approximate="none"):
    return jax.nn.gelu(x, approximate=approximate == "tanh")


# --- Shapes -----------------------------------------------------------------------


def _slice(x, dim=0, start=None, end=None, step=1):
    index: list[Any] = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def _select(x, dim, index):
    return jnp.take(x, index, axis=dim)


def _expand(x, shape, implicit=False):
    own = (1,) * (len(shape) - x.ndim) + x.shape
    # -1 keeps a size; compared as an int, for a size that is symbolic may not be.
    kept = [isinstance(size, int) and size == -1 for size in shape]
    sizes = zip(own, shape, kept, strict=True)
    return jnp.broadcast_to(x, [o if keep else size for o, size, keep in sizes])


def _squeeze(x, dims=None):
    dims = range(x.ndim) if dims is None else np.atleast_1d(dims)
    return jnp.squeeze(x, tuple(d for d in map(int, dims) if x.shape[d] == 1))


def _split(x, sizes, dim=0):
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=dim)


def _pad(x, pad, value=0.0):
    widths = [(0, 0)] * (x.ndim - len(pad) // 2)
    widths += list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return jnp.pad(x, widths, constant_values=value)


def _index(x, indices):
    return x[tuple(slice(None) if i is None else i for i in indices)]


# --- Reductions -------------------------------------------------------------------


def _axes(dim):
    return None if dim is None or dim == [] else tuple(np.atleast_1d(dim).tolist())


def _reduction(fn: Callable) -> Callable:
    def reduce(x, dim=None, keepdim=False, dtype=None):
        return fn(x, axis=_axes(dim), keepdims=keepdim)

    return reduce


def _var(x, dim=None, correction=1, keepdim=False):
    return jnp.var(x, axis=_axes(dim), ddof=correction, keepdims=keepdim)


def _vector_norm(x, order=2, dim=None, keepdim=False, dtype=None):
    return jnp.linalg.norm(x, order, axis=_axes(dim), keepdims=keepdim)


# --- Linear algebra and layers ----------------------------------------------------


def _addmm(bias, x, y, beta=1, alpha=1):
    return beta * bias + alpha * (x @ y)


def _convolution(
    x, kernel, bias, stride, padding, dilation, transposed, output_padding, groups
):
    if transposed:
        raise NotImplementedError("a transposed convolution")
    spatial = "DHW"[-(x.ndim - 2) :]
    result = jax.lax.conv_general_dilated(
        x,
        kernel,
        stride,
        [(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=(f"NC{spatial}", f"OI{spatial}", f"NC{spatial}"),
        feature_group_count=groups,
    )
    return result if bias is None else result + _per_channel(bias, x.ndim)


def _per_channel(x, ndim):
    return x.reshape(1, -1, *(1,) * (ndim - 2))


def affine(weight, bias, mean, var, eps):
    """Returns the scale and the shift of batch normalisation in evaluation mode."""
    scale = jax.lax.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def _batch_norm(x, weight, bias, mean, var, momentum, eps):
    scale, shift = affine(weight, bias, mean, var, eps)
    return x * _per_channel(scale, x.ndim) + _per_channel(shift, x.ndim), None, None


def _normalise(x, axes, eps):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(axes, keepdims=True) + eps)


def _layer_norm(x, shape, weight, bias, eps):
    x = _normalise(x, tuple(range(-len(shape), 0)), eps)
    x = x if weight is None else x * weight
    return (x if bias is None else x + bias), None, None


def _group_norm(x, weight, bias, n, c, size, groups, eps):
    grouped = x.reshape(x.shape[0], groups, -1)
    result = _normalise(grouped, (-1,), eps).reshape(x.shape)
    result = result if weight is None else result * _per_channel(weight, x.ndim)
    result = result if bias is None else result + _per_channel(bias, x.ndim)
    return result, None, None


def _windows(x, kernel, stride, padding, ceil_mode):
    """Returns the arguments of `reduce_window` for a pool of PyTorch."""
    kernel, padding = (np.broadcast_to(a, 2).tolist() for a in (kernel, padding))
    stride = np.broadcast_to(stride, 2).tolist() if stride else kernel
    pairs = [(0, 0)] * (x.ndim - 2)
    for size, k, s, p in zip(x.shape[-2:], kernel, stride, padding, strict=True):
        extra = 0
        if ceil_mode:
            # Rounded up, but no window starts in the padding on the right.
            last = min(math.ceil((size + 2 * p - k) / s), (size + p - 1) // s)
            extra = max(last * s + k - size - 2 * p, 0)
        pairs.append((p, p + extra))
    ones = (1,) * (x.ndim - 2)
    return (*ones, *kernel), (*ones, *stride), pairs


def _max_pool(x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    if np.any(np.asarray(dilation) != 1):
        raise NotImplementedError("a dilated pool")
    args = _windows(x, kernel, stride, padding, ceil_mode)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *args), None


def _avg_pool(
    x,
    kernel,
    stride=(),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    if ceil_mode:
        raise NotImplementedError("an average pool with ceil_mode=True")
    window, strides, pairs = _windows(x, kernel, stride, padding, ceil_mode)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, pairs)
    if divisor_override is not None:
        return total / divisor_override
    if count_include_pad:
        return total / math.prod(window)
    ones = jnp.ones((1,) * (x.ndim - 2) + x.shape[-2:], x.dtype)
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, window, strides, pairs)


def _adaptive_avg_pool(x, size):
    height, width = x.shape[-2:]
    if height % size[0] or width % size[1]:
        raise NotImplementedError(f"an adaptive pool of {height}x{width} to {size}")
    kernel = height // size[0], width // size[1]
    return _avg_pool(x, kernel)


# --- New tensors ------------------------------------------------------------------


def dtype_of(torch_dtype) -> np.dtype:
    """The dtype that JAX uses for a dtype of PyTorch."""
    name = str(torch_dtype).removeprefix("torch.")
    return jax.dtypes.canonicalize_dtype(jnp.dtype(name))


def _cast(x, dtype=None, **kwargs):
    return x if dtype is None else jnp.asarray(x, dtype_of(dtype))


def _full(shape: Sequence[int], value, dtype=None, **kwargs):
    return jnp.full(shape, value, None if dtype is None else dtype_of(dtype))


def _full_like(x, value, dtype=None, **kwargs):
    return jnp.full_like(x, value, None if dtype is None else dtype_of(dtype))


def _arange(start, end, step=1, dtype=None, **kwargs):
    return jnp.arange(start, end, step, None if dtype is None else dtype_of(dtype))


OPERATORS: dict[str, Callable] = {
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "_log_softmax": lambda x, dim, half: jax.nn.log_softmax(x, dim),
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_softmax": lambda x, dim, half: jax.nn.softmax(x, dim),
    "_to_copy": _cast,
    "_unsafe_view": jnp.reshape,
    "abs": jnp.abs,
    "add": _add,
    "addmm": _addmm,
    "alias": _identity,
    "amax": _reduction(jnp.max),
    "amin": _reduction(jnp.min),
    "any": _reduction(jnp.any),
    "arange": _arange,
    "avg_pool2d": _avg_pool,
    "bmm": jnp.matmul,
    "cat": lambda xs, dim=0: jnp.concatenate(xs, dim),
    "clamp": jnp.clip,
    "clone": _identity,
    "constant_pad_nd": _pad,
    "convolution": _convolution,
    "cos": jnp.cos,
    "detach": jax.lax.stop_gradient,
    "div": jnp.divide,
    "elu": _elu,
    "embedding": lambda table, indices, *_: table[indices],
    "eq": jnp.equal,
    "erf": jax.scipy.special.erf,
    "exp": jnp.exp,
    "expand": _expand,
    "full": _full,
    "full_like": _full_like,
    "ge": jnp.greater_equal,
    "gelu": _gelu,
    "gt": jnp.greater,
    "hardtanh": lambda x, low=-1.0, high=1.0: jnp.clip(x, low, high),
    "index": _index,
    "le": jnp.less_equal,
    "leaky_relu": jax.nn.leaky_relu,
    "linalg_vector_norm": _vector_norm,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "logical_and": jnp.logical_and,
    "logical_not": jnp.logical_not,
    "logical_or": jnp.logical_or,
    "lt": jnp.less,
    "max_pool2d_with_indices": _max_pool,
    "maximum": jnp.maximum,
    "mean": _reduction(jnp.mean),
    "minimum": jnp.minimum,
    "mm": jnp.matmul,
    "mul": jnp.multiply,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "ne": jnp.not_equal,
    "neg": jnp.negative,
    "permute": jnp.transpose,
    "pow": jnp.power,
    "reciprocal": jnp.reciprocal,
    "relu": jax.nn.relu,
    "rsqrt": jax.lax.rsqrt,
    "scalar_tensor": _cast,
    "select": _select,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
    "slice": _slice,
    "softplus": _softplus,
    "split_with_sizes": _split,
    "sqrt": jnp.sqrt,
    "squeeze": _squeeze,
    "sub": _sub,
    "sum": _reduction(jnp.sum),
    "sym_size": lambda x, dim: x.shape[dim],
    "tanh": jnp.tanh,
    "unsqueeze": jnp.expand_dims,
    "var": _var,
    "view": jnp.reshape,
    "where": jnp.where,
}
# On sizes that depend on the batch, Python's own operators.
_ON_SIZES = {f for f in vars(operator).values() if callable(f)} | {
    math.ceil,
    math.floor,
}
# Checks of sizes, which hold for the inputs that JAX gives shapes to.
_CHECKS = {"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size"}


def implementation(target) -> Callable | None:
    """Returns the function for the target of a graph's node; None if there is none."""
    if target in _ON_SIZES:
        return target
    name = operator_name(target)
    return _identity if name in _CHECKS else OPERATORS.get(name)


def operator_name(target) -> str:
    """Returns the name of an ATen operator, such as `relu`; "" for anything else."""
    namespace, _, name = str(target).partition(".")
    return name.partition(".")[0] if namespace == "aten" else ""
