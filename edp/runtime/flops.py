"""How many floating-point operations a function takes, from its program alone.

XLA's own count takes the body of a loop once, however often it runs, so it is not
used here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


class Uncountable(ValueError):
    """The program does not tell how many operations there are in it."""


def flops(fn: Callable, *args: Any) -> int:
    """Counts the operations of convolutions and matrix products.

    A multiplication with its addition is two. What else there is (normalisation,
    activations, the optimizer) is left out: it grows with the layers' sizes and not
    with their products. Zeros that pad an image are counted as any input, as is usual;
    those that the gradient of a strided convolution puts between its inputs are not,
    so that the gradients of a convolution take as much each as the convolution.

    Loops are counted as often as they run, of branches the one that takes most. Work
    of which nothing comes is left out, as it is where the program is compiled.

    Args:
      fn: a jittable function; it is traced, not run.
      *args: trees of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
      Uncountable: for such operations in a loop that runs until a condition holds,
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
        raise Uncountable("a loop that runs until a condition holds has products in it")
    return sum(inner)


def _programs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Those that an equation is made of, such as the branches of a condition."""
    for value in jax.tree.leaves(
        list(eqn.params.values()),
        is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
    ):
        if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
            yield getattr(value, "jaxpr", value)


def _of_matrix_product(eqn: core.JaxprEqn) -> int:
    """Multiplications: of each output as many as dimensions are contracted over."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return eqn.outvars[0].aval.size * math.prod(lhs[d] for d in contracted)


def _of_convolution(eqn: core.JaxprEqn) -> int:
    """Multiplications: at every position, of each tap with all of its features."""
    lhs, rhs = (var.aval.shape for var in eqn.invars)
    out = eqn.outvars[0].aval.shape
    dimensions = eqn.params["dimension_numbers"]
    # Of a spread-out image, every element meets every tap, and the zeros none.
    is_spread = math.prod(eqn.params["lhs_dilation"]) > 1
    image, spec = (
        (lhs, dimensions.lhs_spec) if is_spread else (out, dimensions.out_spec)
    )
    positions = math.prod(image[d] for d in spec[2:])
    batch, features = (out[d] for d in dimensions.out_spec[:2])
    inputs, *taps = (rhs[d] for d in dimensions.rhs_spec[1:])
    return batch * positions * features * inputs * math.prod(taps)


_PRODUCTS = {
    "dot_general": _of_matrix_product,
    "conv_general_dilated": _of_convolution,
}
