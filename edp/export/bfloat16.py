"""Programs that compute their layers in bfloat16."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp.export import graph
from edp.export.graph import Operation

_LAYERS = ("conv_general_dilated", "dot_general")


def to_bfloat16(program: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """Returns a program whose convolutions and dense layers multiply bfloat16.

    Their weights are stored in bfloat16, and products are accumulated in float32. All
    else stays in float32, such as softmax, temperature and scores of uncertainty.

    Args:
      program: a function of one array, with its weights as constants.
    """

    @functools.wraps(program)
    def lowered(images):
        tree = jax.tree.structure(jax.eval_shape(program, images))
        traced = graph.trace(program, images)
        arrays: dict[graph.Value, Any] = {traced.input: images}

        def read(value):
            return value.constant if value.is_constant else arrays[value]

        for operation in traced.operations:
            found = _apply(operation, [read(value) for value in operation.inputs])
            arrays |= zip(operation.outputs, found, strict=True)
        return jax.tree.unflatten(tree, map(read, traced.outputs))

    return lowered


def _apply(operation: Operation, arrays: list[Any]) -> Any:
    """Applies an operation to arrays, a layer to arrays in bfloat16."""
    if operation.name not in _LAYERS or {a.dtype for a in arrays} != {
        np.dtype(np.float32)
    }:
        return operation.bind(*arrays)
    params = {**operation.params, "preferred_element_type": np.dtype(np.float32)}
    halves = [array.astype(jnp.bfloat16) for array in arrays]
    return [operation.primitive.bind(*halves, **params)]
