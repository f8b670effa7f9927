"""Output-diversified sampling (ODS), plain and scaled by confidence."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from edp import losses
from edp.perturbations import checks, geometry, objectives

LogitsFn = Callable[[jax.Array], jax.Array]


def ods(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: checks.Clip = (0.0, 1.0),
    scale: ArrayLike | None = None,
) -> jax.Array:
    """Perturbs x so that one network's outputs change in a random direction.

    x̃ = x + η√D g/‖g‖₂ with g = ∇ₓ Σ_k w_k softmax(f(x)/τ)_k and w ~ U(−1, 1)^K
    per example (Tashiro, Song and Ermon, NeurIPS 2020, eq. 2; in distillation:
    arXiv 2110.14149, eq. 6). The other members of an ensemble respond differently to
    such a step, so it reveals their diversity.

    Args:
      key: PRNG key.
      logits_fn: x [B, ...] -> logits [B, K] of one network (for an ensemble, of one
        member sampled per batch).
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the step has L2 length η√D, where D is
        the number of elements of one input. The paper uses 1/255.
      temperature: τ of the softmax.
      clip: range of valid inputs in the units of x, or None. For normalised inputs:
        ((0 − mean) / std, (1 − mean) / std).
      scale: units of x per unit of pixels, a number or one per channel [C]; None is
        1. For normalised inputs 1 / std: direction and length are then those of the
        pixels, and x̃ = x + η√D · scale · u, u the unit gradient in pixels.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input whose
      gradient is zero or not finite stays unchanged.

    Raises:
      InputError: x is not floating-point or, outside `jit`, lies outside `clip`, or
        there is one class; see `checks.check_input`, `checks.check_temperature`,
        `checks.as_scale` and `losses.check_classes`.
    """
    checks.check_input(x, clip)
    checks.check_temperature(temperature)
    scale = checks.as_scale(scale, x)
    gradient, _ = _gradient(key, logits_fn, x, temperature)
    length = geometry.radius(x, step_size)
    step = geometry.ascent_step(gradient, length, scale)
    return geometry.clip_and_detach(x + step, x, clip)


def conf_ods(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: checks.Clip = (0.0, 1.0),
    scale: ArrayLike | None = None,
) -> jax.Array:
    """Computes `ods` with each step scaled by the network's confidence on that input.

    The step has length max_k softmax(f(x)/τ)_k · η√D: inputs on which the network is
    unsure, and members already differ, are perturbed less (arXiv 2110.14149,
    section 3.3). Arguments, result and errors are those of `ods`.
    """
    checks.check_input(x, clip)
    checks.check_temperature(temperature)
    scale = checks.as_scale(scale, x)
    gradient, confidence = _gradient(key, logits_fn, x, temperature)
    confidence = jnp.nan_to_num(confidence)  # logits that overflowed: no step
    length = geometry.radius(x, step_size) * geometry.per_example(confidence, x)
    step = geometry.ascent_step(gradient, length, scale)
    return geometry.clip_and_detach(x + step, x, clip)


def _gradient(key, logits_fn, x, temperature):
    """Computes the gradient [B, ...] of a random output and the confidence [B]."""
    logits, pull_back = jax.vjp(logits_fn, x)
    chex.assert_rank(logits, 2)
    losses.check_classes(logits)
    cotangent = objectives.random_output(key, logits[None], temperature)[0]
    (gradient,) = pull_back(cotangent.astype(logits.dtype))
    scaled = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    return gradient, jax.nn.softmax(scaled, axis=-1).max(axis=-1)
