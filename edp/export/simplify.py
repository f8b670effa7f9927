"""Simplifies programs for export: batch normalisation in the weights.

In evaluation batch normalisation is x·a + b per channel. After a convolution or a dense
layer with weights W it is a layer with weights W∘a, and an addition of b. Elsewhere
(pre-activation blocks) one multiplication and one addition remain. No runtime
derives this from (x − mean)·scale/√(var + ε) + bias by itself.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from edp.export import graph
from edp.export.graph import Operation, Value


class _Affine(NamedTuple):
    """A value as base·factor + shift, per channel (the last axis).

    Attributes:
      base: the value that it is computed from.
      factor: float64, [C] or a scalar.
      shift: float64, [C] or a scalar.
    """

    base: Value
    factor: np.ndarray
    shift: np.ndarray

    @property
    def is_per_channel(self) -> bool:
        return max(self.factor.size, self.shift.size) > 1


def simplify(program: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Returns a program of the same outputs that computes less.

    Equal parts are computed once, such as a network whose probabilities and scores of
    uncertainty are both outputs; constants are computed in advance; and batch
    normalisation in evaluation mode is folded into the layer before it, or made one
    multiplication and one addition. Outputs differ by rounding.

    Args:
      program: a function of one array, with its weights as constants.
    """

    @functools.wraps(program)
    def simplified(images):
        tree = jax.tree.structure(jax.eval_shape(program, images))
        traced = graph.trace(program, images)
        return jax.tree.unflatten(tree, _Evaluation(traced).run(images))

    return simplified


class _Evaluation:
    """Evaluates a graph with affine operations folded into the layers before them."""

    def __init__(self, traced: graph.Graph):
        self._graph = traced
        self._uses = collections.Counter(traced.outputs)
        for operation in traced.operations:
            self._uses.update(operation.inputs)
        self._affine: dict[Value, _Affine] = {}
        for operation in traced.operations:
            if found := _as_affine(operation, self._affine, self._uses):
                self._affine[operation.outputs[0]] = found
        self._arrays: dict[Value, Any] = {}

    def run(self, images: jax.Array) -> list[Any]:
        """Returns the outputs for images."""
        self._arrays = {self._graph.input: images}
        needed = self._needed()
        for operation in self._graph.operations:
            if needed.isdisjoint(operation.outputs):
                continue
            if affine := self._folded(operation.outputs[0]):
                self._arrays[operation.outputs[0]] = self._apply(affine)
            else:
                found = operation.bind(*map(self._read, operation.inputs))
                self._arrays |= zip(operation.outputs, found, strict=True)
        return [self._read(value) for value in self._graph.outputs]

    def _folded(self, value: Value) -> _Affine | None:
        affine = self._affine.get(value)
        return affine if affine is not None and affine.is_per_channel else None

    def _needed(self) -> set[Value]:
        """Returns the values to compute: not those inside an affine operation."""
        needed = set(self._graph.outputs)
        for operation in reversed(self._graph.operations):
            if needed.isdisjoint(operation.outputs):
                continue
            if affine := self._folded(operation.outputs[0]):
                needed.update(self._leaves(affine.base))
            else:
                needed.update(operation.inputs)
        return needed

    def _leaves(self, value: Value) -> list[Value]:
        """Returns what a base is computed from when its factor is folded into it."""
        if not self._absorbs(value):
            return [value]
        assert value.operation is not None
        first, second = value.operation.inputs
        if value.operation.name != "mul":
            return [first]
        if self._absorbs(first):
            return [*self._leaves(first), second]
        return [first, *self._leaves(second)]

    def _absorbs(self, value: Value) -> bool:
        """Returns whether a factor per channel can go into the weights of a value."""
        operation = value.operation
        if operation is None or self._uses[value] > 1 or self._folded(value):
            return False
        if operation.name == "mul":
            return any(map(self._absorbs, operation.inputs))
        return _weights_axis(operation) is not None

    def _apply(self, affine: _Affine) -> jax.Array:
        dtype = affine.base.aval.dtype
        if np.all(affine.factor == 1) or not self._absorbs(affine.base):
            y = self._base(affine.base)
            if np.any(affine.factor != 1):
                y = y * _row(affine.factor, y, dtype)
        else:
            y = self._scaled(affine.base, affine.factor)
        return y + _row(affine.shift, y, dtype) if np.any(affine.shift != 0) else y

    def _base(self, value: Value) -> Any:
        if value in self._arrays or value.is_constant:
            return self._read(value)
        return self._scaled(value, np.ones(()))

    def _scaled(self, value: Value, factor: np.ndarray) -> Any:
        """Computes a value that absorbs a factor, times this factor."""
        operation = value.operation
        assert operation is not None
        first, second = operation.inputs
        if operation.name == "mul":
            if self._absorbs(first):
                return self._scaled(first, factor) * self._read(second)
            return self._read(first) * self._scaled(second, factor)
        axis = _weights_axis(operation)
        assert axis is not None
        weights = np.asarray(second.constant, np.float64)
        if factor.size > 1:
            shape = [1] * weights.ndim
            shape[axis] = -1
            factor = factor.reshape(shape)
        scaled = (weights * factor).astype(second.aval.dtype)
        return operation.bind(self._read(first), scaled)[0]

    def _read(self, value: Value) -> Any:
        return value.constant if value.is_constant else self._arrays[value]


def _as_affine(
    operation: Operation, affine: Mapping[Value, _Affine], uses: Mapping[Value, int]
) -> _Affine | None:
    """Returns the output of an operation as an affine function, if it is one."""
    if operation.name not in ("add", "sub", "mul", "div"):
        return None
    (output,) = operation.outputs
    if output.aval.dtype != np.float32 or not output.aval.shape:
        return None
    first, second = operation.inputs
    x, number, swapped = first, _per_channel(second), False
    if number is None:
        x, number, swapped = second, _per_channel(first), True
    if number is None or x.is_constant or x.aval.shape != output.aval.shape:
        return None
    if not np.isfinite(number).all() or (operation.name == "div" and not number.all()):
        return None  # infinity times a shift of zero would be NaN
    base, factor, shift = _Affine(x, np.ones(()), np.zeros(()))
    if x in affine and uses[x] == 1:
        base, factor, shift = affine[x]
    if operation.name == "add":
        return _Affine(base, factor, shift + number)
    if operation.name == "mul":
        return _Affine(base, factor * number, shift * number)
    if operation.name == "sub":
        if swapped:
            return _Affine(base, -factor, number - shift)
        return _Affine(base, factor, shift - number)
    return None if swapped else _Affine(base, factor / number, shift / number)


def _per_channel(value: Value) -> np.ndarray | None:
    """Returns a constant that differs along the last axis only, float64 [C] or []."""
    shape, operation = value.aval.shape, value.operation
    if operation is not None and operation.name == "broadcast_in_dim":
        inner = operation.inputs[0]
        own = inner.aval.shape
        if not inner.is_constant:
            return None
        axes = operation.params["broadcast_dimensions"]
        kept = [axis for axis, size in zip(axes, own, strict=True) if size != 1]
        if kept and (kept != [len(shape) - 1] or own[-1] != shape[-1]):
            return None
        value = inner
    elif not value.is_constant or any(size != 1 for size in shape[:-1]):
        return None
    array = np.asarray(value.constant, np.float64).reshape(-1)
    return array if array.size > 1 else array.reshape(())


def _weights_axis(operation: Operation) -> int | None:
    """Returns the axis of constant weights that is the last axis of the output."""
    weights = operation.inputs[1] if len(operation.inputs) == 2 else None
    if weights is None or not weights.is_constant or weights.aval.dtype != np.float32:
        return None
    last = len(operation.outputs[0].aval.shape) - 1
    if operation.name == "conv_general_dilated":
        numbers = operation.params["dimension_numbers"]
        grouped = operation.params["batch_group_count"] > 1
        return (
            numbers.rhs_spec[0] if numbers.out_spec[1] == last and not grouped else None
        )
    if operation.name == "dot_general":
        (_, contracted), (_, batch) = operation.params["dimension_numbers"]
        if batch or weights.aval.ndim != len(contracted) + 1:
            return None
        (free,) = set(range(weights.aval.ndim)) - set(contracted)
        return free
    return None


def _row(numbers: np.ndarray, like: Any, dtype: Any) -> np.ndarray:
    """Returns numbers per channel as an array that broadcasts to [..., C]."""
    if numbers.size == 1:
        return numbers.reshape(()).astype(dtype)
    return numbers.reshape((1,) * (like.ndim - 1) + (-1,)).astype(dtype)
