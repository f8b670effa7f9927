"""Traced programs as lists of operations: inlined, deduplicated, constants folded."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Calls that only wrap a program, and the parameter that holds it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
_IDENTITIES = ("stop_gradient",)
# Results of up to so many elements are computed in advance even where they are larger
# than what they are computed from.
_SMALL = 4096


@dataclasses.dataclass(eq=False)
class Value:
    """An array of the program.

    Attributes:
      aval: its shape, which may be symbolic, and its dtype.
      constant: the array, where it does not depend on the program's input.
      operation: what computes it; None for constants and the input.
    """

    aval: Any
    constant: Any = None
    operation: "Operation | None" = None

    @property
    def is_constant(self) -> bool:
        return self.constant is not None


@dataclasses.dataclass(eq=False)
class Operation:
    """One primitive of JAX with its operands and results."""

    primitive: Any
    params: dict[str, Any]
    inputs: Sequence[Value]
    outputs: Sequence[Value]

    @property
    def name(self) -> str:
        return self.primitive.name

    def bind(self, *arrays: Any) -> Sequence[Any]:
        """Applies the primitive to arrays; returns one array per output."""
        found = self.primitive.bind(*arrays, **self.params)
        return found if self.primitive.multiple_results else [found]


@dataclasses.dataclass
class Graph:
    """A program of one input.

    Attributes:
      input: the value that stands for the argument.
      outputs: the values that it returns, in the order of the tree's leaves.
      operations: in an order in which each follows those that it depends on.
    """

    input: Value
    outputs: list[Value]
    operations: list[Operation]


def trace(program: Callable[[jax.Array], Any], images: Any) -> Graph:
    """Traces a program of one array.

    Nested calls are inlined, equal operations on equal operands become one, and
    operations on constants are computed now.

    Args:
      program: a function of one array.
      images: that array, or its shape (which may be symbolic) and dtype.
    """
    like = jax.ShapeDtypeStruct(images.shape, images.dtype)
    closed = jax.make_jaxpr(program)(like)
    builder = _Builder()
    start = Value(closed.in_avals[0])
    outputs = builder.inline(closed.jaxpr, closed.consts, [start])
    return Graph(start, outputs, reachable(builder.operations, outputs))


def reachable(
    operations: Sequence[Operation], outputs: Iterable[Value]
) -> list[Operation]:
    """Returns the operations that outputs depend on, in their order."""
    needed, kept = set(outputs), []
    for operation in reversed(operations):
        if not needed.isdisjoint(operation.outputs):
            kept.append(operation)
            needed.update(operation.inputs)
    return kept[::-1]


class _Builder:
    def __init__(self):
        self.operations: list[Operation] = []
        self._known: dict[Any, Sequence[Value]] = {}
        self._constants: dict[Any, Value] = {}

    def inline(self, jaxpr: Any, consts: Any, inputs: Sequence[Value]) -> list[Value]:
        """Adds the operations of a jaxpr; returns the values of its outputs."""
        values = dict(zip(jaxpr.invars, inputs, strict=True))
        values |= zip(jaxpr.constvars, map(self._constant, consts), strict=True)

        def read(atom):
            return self._constant(atom.val) if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
            if inner is None:
                avals = [variable.aval for variable in equation.outvars]
                found = self._apply(
                    equation.primitive, equation.params, operands, avals
                )
            else:
                open_jaxpr = getattr(inner, "jaxpr", inner)
                found = self.inline(open_jaxpr, getattr(inner, "consts", ()), operands)
            values |= zip(equation.outvars, found, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _constant(self, array: Any) -> Value:
        """Returns the one value of all constants equal to this array."""
        aval = jax.typeof(array)
        key: Any = id(array)
        if not jnp.issubdtype(aval.dtype, jax.dtypes.extended):
            array = np.asarray(array)
            digest = hashlib.sha256(array.tobytes()).digest()
            key = (str(aval), getattr(aval, "weak_type", False), digest)
        if key not in self._constants:
            self._constants[key] = Value(aval, array)
        return self._constants[key]

    def _apply(self, primitive, params, inputs, avals) -> Sequence[Value]:
        if primitive.name in _IDENTITIES:
            return inputs
        key = (
            primitive,
            tuple((name, _hashable(params[name])) for name in sorted(params)),
            tuple(map(id, inputs)),
        )
        if key not in self._known:
            operation = Operation(primitive, params, inputs, list(map(Value, avals)))
            found = _compute(operation)
            if found is None:
                for output in operation.outputs:
                    output.operation = operation
                self.operations.append(operation)
                self._known[key] = operation.outputs
            else:
                self._known[key] = list(map(self._constant, found))
        return self._known[key]


def _hashable(value: Any) -> Any:
    """Returns a key that equal values share; of what cannot be hashed, its identity."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return (type(value), value)


def _compute(operation: Operation) -> Sequence[Any] | None:
    """Computes the outputs of an operation on constants; None where it stays."""
    if not operation.inputs or not all(v.is_constant for v in operation.inputs):
        return None
    avals = [value.aval for value in (*operation.inputs, *operation.outputs)]
    if any(jnp.issubdtype(aval.dtype, jax.dtypes.extended) for aval in avals):
        return None  # keys of random numbers
    if not all(isinstance(size, int) for aval in avals for size in aval.shape):
        return None
    before = sum(math.prod(value.aval.shape) for value in operation.inputs)
    after = sum(math.prod(value.aval.shape) for value in operation.outputs)
    if after > before:
        # What only repeats values is small in the program.
        rank = max(len(value.aval.shape) for value in operation.outputs)
        if after > _SMALL or (operation.name == "broadcast_in_dim" and rank > 1):
            return None
    try:
        with jax.ensure_compile_time_eval():
            return operation.bind(*(value.constant for value in operation.inputs))
    except (NotImplementedError, TypeError):
        return None  # jax2onnx replaces some primitives by ones that compute nothing
