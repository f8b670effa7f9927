"""Floating-point operations of a function, counted in its jaxpr.

XLA's cost analysis counts the body of a loop once, however often it runs, so it is not
used here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


class Uncountable(ValueError):
    """The number of operations cannot be counted before the program runs."""


def flops(fn: Callable, *args: Any) -> int:
    """Counts the operations of convolutions and matrix products.

    A multiply-add is two operations. All else (normalisation, activations, the
    optimizer) is excluded: it grows with the layers' sizes, not with their products.
    Zeros that pad an image count like any input, as is usual. Zeros between the inputs
    of the gradient of a strided convolution do not, so that each gradient of a
    convolution costs as much as the convolution.

    A loop's body counts once per iteration; of branches, the most expensive counts.
    Unused results do not count, as the compiler eliminates them.

    Args:
      fn: a jittable function; it is traced, not run.
      *args: trees of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
      Uncountable: if such operations are in a `while` loop,
        and for compiled kernels, which `edp.models.native.disabled` keeps out.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _of_program(used)


def _of_program(jaxpr: core.Jaxpr) -> int:
    return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(eqn: core.JaxprEqn) -> int:
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return 2 * _PRODUCTS[name](eqn)
    if name == "ffi_call":
        raise Uncountable("the program calls a compiled kernel")
    inner = [_of_program(jaxpr) for jaxpr in _programs(eqn)]
    if name == "scan":
        return eqn.params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "while" and any(inner):
        raise Uncountable("a while loop of unknown length has products in it")
    return sum(inner)


def _programs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs in an equation, such as the branches of a `cond`."""
    for value in jax.tree.leaves(
        list(eqn.params.values()),
        is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
    ):
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
            yield getattr(value, "jaxpr", value)


def _of_matrix_product(eqn: core.JaxprEqn) -> int:
    """Counts multiplications: per output, the size of the contracted dimensions."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return eqn.outvars[0].aval.size * math.prod(lhs[d] for d in contracted)


def _of_convolution(eqn: core.JaxprEqn) -> int:
    """Counts multiplications: at every position, each tap times its features."""
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    dimensions = eqn.params["dimension_numbers"]
    # In a dilated image, every element meets every tap; zeros do not count.
    is_dilated = math.prod(eqn.params["lhs_dilation"]) > 1
    image, spec = (
        (lhs, dimensions.lhs_spec) if is_dilated else (out, dimensions.out_spec)
    )
    positions = math.prod(image[d] for d in spec[2:])
    batch, features = (out[d] for d in dimensions.out_spec[:2])
    inputs, *taps = (rhs[d] for d in dimensions.rhs_spec[1:])
    return batch * positions * features * inputs * math.prod(taps)


_PRODUCTS = {
    "dot_general": _of_matrix_product,
    "conv_general_dilated": _of_convolution,
}
