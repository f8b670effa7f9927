"""ATen operators on images kept as [N, H, W, C], the layout of `edp.models`.

PyTorch's images are [N, C, H, W]. In that order convolutions reach neither XLA's fast
kernels for CPUs nor those of `edp.models.native`, and a transposition at each of them
costs a pass over the activations. So the arrays of images stay in the order that JAX
gives them, as long as an operator is known here; others receive them transposed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from edp.models import aten
from edp.models.cpu_convolution import convolve

# The axis in [N, H, W, C] of each axis of [N, C, H, W].
_AXES = (0, 3, 1, 2)


class ChannelsLast:
    """An image tensor [N, C, H, W] of PyTorch as an array [N, H, W, C]."""

    def __init__(self, array: jax.Array):
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in PyTorch."""
        return tuple(self.array.shape[axis] for axis in _AXES)


def plain(value: Any) -> Any:
    """Returns the array in the layout of PyTorch."""
    if not isinstance(value, ChannelsLast):
        return value
    return value.array.transpose(0, 3, 1, 2)


def call(target: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Computes a node of a graph; keeps the layout of its image tensors if it can.

    Args:
      target: the target of the node; `aten.implementation` has it.
      args: its arguments, of which any tensor may be `ChannelsLast`.
      kwargs: its keyword arguments.
    """
    function: Any = aten.implementation(target)
    name = aten.operator_name(target)
    if not name:  # Python's own operators, on sizes and on several results
        return function(*args, **kwargs)
    if _has_images(args):
        kept = _OPERATORS.get(name, _none)(function, *args, **kwargs)
        if kept is not None:
            return kept
        args = _as_plain(args)
    return function(*args, **kwargs)


def _has_images(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_images, value))
    return isinstance(value, ChannelsLast)


def _as_plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_plain(child) for child in value]
    return plain(value)


# Each returns None where it cannot keep the layout.


def _none(*args, **kwargs):
    return None


def _elementwise(function, *args, **kwargs):
    arrays = []
    for value in args:
        if isinstance(value, ChannelsLast):
            arrays.append(value.array)
        elif not isinstance(value, jax.Array) or value.ndim == 0:
            arrays.append(value)
        elif value.ndim in (3, 4):
            arrays.append(jnp.moveaxis(value, -3, -1))
        else:
            return None
    return ChannelsLast(function(*arrays, **kwargs))


def _convolution(
    function,
    x,
    kernel,
    bias,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
):
    if transposed or not isinstance(x, ChannelsLast):
        return None
    kernel = plain(kernel).transpose(2, 3, 1, 0)
    halves = [size // 2 for size in kernel.shape[:2]]
    # Convolutions of the networks of this project, and most others.
    if (
        groups == 1
        and set(dilation) == {1}
        and list(padding) == halves
        and len(set(stride)) == 1
    ):
        y = convolve(x.array, kernel, stride[0])
    else:
        y = jax.lax.conv_general_dilated(
            x.array,
            kernel,
            stride,
            [(p, p) for p in padding],
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    return ChannelsLast(y if bias is None else y + bias)


def _batch_norm(function, x, weight, bias, mean, var, momentum, eps):
    scale, shift = aten.affine(weight, bias, mean, var, eps)
    return ChannelsLast(x.array * scale + shift), None, None


def _pool(function, x, *args, **kwargs):
    # Over each channel, [N, H, W]; XLA adds the axis to its windows in place.
    found = jax.vmap(lambda x: function(x, *args, **kwargs), -1, -1)(x.array)
    if isinstance(found, tuple):
        return ChannelsLast(found[0]), *found[1:]
    return ChannelsLast(found)


def _reduction(function, x, dim=None, keepdim=False, **kwargs):
    axes = range(4) if dim is None or dim == [] else dim
    axes = [_AXES[axis] for axis in (axes if hasattr(axes, "__iter__") else [axes])]
    if not keepdim and set(axes) != {1, 2}:
        return None
    result = function(x.array, axes, keepdim=keepdim, **kwargs)
    return ChannelsLast(result) if keepdim else result


def _slice(function, x, dim=0, *args, **kwargs):
    return ChannelsLast(function(x.array, _AXES[dim], *args, **kwargs))


def _cat(function, tensors, dim=0):
    if not all(isinstance(x, ChannelsLast) for x in tensors):
        return None
    return ChannelsLast(function([x.array for x in tensors], _AXES[dim]))


def _pad(function, x, pad, value=0.0):
    # From the last axis of [N, C, H, W] on.
    widths = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]
    widths.extend([(0, 0)] * (4 - len(widths)))
    width, height, channels, batch = widths
    if any(size < 0 for pair in widths for size in pair):
        return None
    pairs = (batch, height, width, channels)
    return ChannelsLast(jnp.pad(x.array, pairs, constant_values=value))


def _flatten(function, x, shape):
    """Of images of one pixel: their layouts are the same."""
    if x.array.shape[1:3] != (1, 1):
        return None
    return function(x.array, shape)


def _size(function, x, dim):
    return x.shape[dim]


_ELEMENTWISE = """abs add alias clamp clone cos detach div elu eq erf exp ge gelu gt
    hardtanh le leaky_relu log log1p logical_and logical_not logical_or lt maximum
    minimum mul ne neg pow reciprocal relu rsqrt sigmoid sin softplus sqrt sub tanh
    where _to_copy"""
_OPERATORS: dict[str, Callable] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(("amax", "amin", "mean", "sum", "var"), _reduction),
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices"), _pool),
    **dict.fromkeys(("view", "_unsafe_view"), _flatten),
    "_adaptive_avg_pool2d": _pool,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cat": _cat,
    "constant_pad_nd": _pad,
    "convolution": _convolution,
    "slice": _slice,
    "sym_size": _size,
}
