"""Computes the FLOPs of a step and the measured peaks of the hardware.

FLOPs are those that the algorithm needs, counted by hand: two for every multiplication
and addition of a convolution or matrix product, whatever kernels compute it, and
nothing else. The compiler's count is reported beside it; it includes element-wise work,
leaves zero padding out, and on some backends and with some kernels or loops misses
whole convolutions.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Step
from edp.models import cpu_convolution, native

_MATMUL_SIZE = {"cpu": 2048}
_DEFAULT_MATMUL_SIZE = 8192
_TRIALS, _CALLS = 5, 2


def matmul_flops(rows: int, inner: int, columns: int) -> int:
    """Returns the FLOPs of [rows, inner] @ [inner, columns]."""
    return 2 * rows * inner * columns


def convolution_flops(out_shape: Sequence[int], kernel_shape: Sequence[int]) -> int:
    """Returns the FLOPs of a convolution, including those on zero padding.

    Args:
      out_shape: [N, H', W', features].
      kernel_shape: [kh, kw, C / groups, features].
    """
    return 2 * math.prod(out_shape) * math.prod(kernel_shape[:-1])


def forward_flops(fn: Callable, *args) -> int:
    """Returns the FLOPs of the convolutions and matrix products of `fn(*args)`.

    Args:
      fn: a jittable function, such as a network's forward pass.
      *args: arrays or their shapes.
    """
    with native.disabled():
        return _jaxpr_flops(jax.make_jaxpr(fn)(*args).jaxpr)


def _jaxpr_flops(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            (_, kernel), (out,) = equation.invars, equation.outvars
            numbers = equation.params["dimension_numbers"]
            order = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
            shape = [kernel.aval.shape[axis] for axis in order]
            total += convolution_flops(out.aval.shape, shape)
        elif equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        else:
            inner = [_jaxpr_flops(sub) for sub in _called(equation.params)]
            repeats = equation.params.get("length", 1)
            total += max(inner, default=0) * repeats
    return total


def _called(params: dict[str, Any]):
    """Yields the jaxprs that an equation calls, such as branches of a conditional."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item


def step_flops(step: Step, num_members: int, network: int, student: int) -> int:
    """Returns the FLOPs of one step, given those of forward passes over its batch.

    A training pass counts as three forward passes (the gradients of the inputs and of
    the weights cost one each; the saving in the first layer is neglected), a gradient
    of the inputs alone as two.

    Args:
      step: the step.
      num_members: M.
      network: FLOPs of one plain network's forward pass.
      student: FLOPs of the student's, all its members together.
    """
    if step.kind == "teacher_step":
        return 3 * num_members * network
    extra = {"none": 0, "mixup": 0, "disagreement": 2 * num_members * network}
    perturbation = extra.get(step.perturbation, 2 * network)
    if step.kind == "perturb":
        return perturbation
    passes = 1 if step.perturbation == "none" else 2
    return perturbation + num_members * network + 3 * passes * student


def compiler_flops(analysis: Any) -> float | None:
    """Returns the compiler's count from `lowered` or `compiled.cost_analysis()`."""
    if isinstance(analysis, (list, tuple)):
        analysis = analysis[0] if analysis else None
    return (analysis or {}).get("flops")


def best_rate(fn: Callable, args: Sequence[Any], flops: int, calls: int) -> float:
    """Returns the highest FLOP/s of `fn(*args)` in a few trials."""
    fn = jax.jit(fn)
    jax.block_until_ready(fn(*args))
    best = math.inf
    for _ in range(_TRIALS):
        started = time.perf_counter()
        results = [fn(*args) for _ in range(calls)]
        jax.block_until_ready(results[-1])
        best = min(best, (time.perf_counter() - started) / calls)
        del results
    return flops / best


def matmul_rate(precision: str) -> float:
    """Measures the device's peak: FLOP/s of a large matrix product."""
    size = _MATMUL_SIZE.get(jax.default_backend(), _DEFAULT_MATMUL_SIZE)
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(precision)
    return best_rate(jnp.matmul, (a, a), matmul_flops(size, size, size), calls=_CALLS)


def convolution_rate(precision: str) -> float:
    """Measures the best FLOP/s of a 3x3 forward convolution over several widths."""
    rates = []
    for size, width in ((32, 64), (16, 128), (8, 256)):
        x = jnp.ones((64, size, size, width), precision)
        kernel = jnp.ones((3, 3, width, width), precision)
        flops = convolution_flops(x.shape, kernel.shape)

        def convolve(x, kernel):
            return cpu_convolution.convolve(x, kernel, 1)

        rates.append(best_rate(convolve, (x, kernel), flops, calls=_CALLS))
    return max(rates)
