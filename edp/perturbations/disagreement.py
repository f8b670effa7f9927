"""Adversarial-disagreement perturbation: gradient ascent on a disagreement measure."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from edp.errors import InputError
from edp.perturbations import checks, geometry
from edp.perturbations.objectives import QUANTITIES


def disagreement(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: checks.Clip = (0.0, 1.0),
    quantity: str = "variance",
    num_steps: int = 1,
    step_length: float | None = None,
    scale: ArrayLike | None = None,
) -> jax.Array:
    """Perturbs x in the direction in which the members' outputs diverge.

    Each of `num_steps` steps has length `step_length` along the normalised gradient
    of the chosen quantity of the tempered probabilities p_m = softmax(f_m(x)/τ). It
    is then projected onto the L2 ball of radius η√D around x and clipped. The default
    quantity is Σ_k Var_m[p_mk], the variance over the members.

    Works in float32 for members of any confidence: the direction of the gradient is
    exact at logit margins where the quantity itself underflows. Members that are the
    same function leave x exactly unchanged.

    Args:
      key: PRNG key (read by quantities that sample).
      logits_fn: x [B, ...] -> logits [M, B, K] of all M members. Its gradient
        determines the memory: for the memory of a few members at once, loop over
        groups of them under `jax.checkpoint`, as `edp.ensemble.logits` does.
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the ball has radius η√D, where D is the
        number of elements of one input.
      temperature: τ of the softmax.
      clip: range of valid inputs in the units of x, or None.
      quantity: 'variance', 'mutual_information', 'pairwise_kl' or 'projection';
        see `edp.perturbations.objectives`.
      num_steps: gradient steps, at least 1; each costs a forward and a backward
        pass of all members.
      step_length: L2 length of one step, in pixel units; η√D / num_steps if None.
      scale: units of x per unit of pixels, a number or [C]; None is 1. See `ods`.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input whose
      gradient is zero or not finite stays unchanged.

    Raises:
      InputError: for an unknown quantity or a `num_steps` below 1; see also
        `checks.check_input`, `checks.check_temperature`, `checks.check_members` and
        `checks.as_scale`.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"quantity={quantity!r} is not known; accepted: {', '.join(QUANTITIES)}"
        )
    if num_steps < 1:
        raise InputError(
            f"num_steps={num_steps} is too small; accepted: integers of at least 1"
        )
    checks.check_input(x, clip)
    checks.check_temperature(temperature)
    scale = checks.as_scale(scale, x)
    radius = geometry.radius(x, step_size)
    length = radius / num_steps if step_length is None else step_length
    # In float32 between steps: short ones would be lost in the rounding of bfloat16.
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    perturbed = wide
    # Unrolled: on CPU, convolutions inside a loop primitive run many times slower.
    for step_key in jax.random.split(key, num_steps):
        logits, pull_back = jax.vjp(logits_fn, perturbed.astype(x.dtype))
        checks.check_members(logits)
        cotangent = QUANTITIES[quantity](step_key, logits, temperature)
        (gradient,) = pull_back(cotangent.astype(logits.dtype))
        perturbed = perturbed + geometry.ascent_step(gradient, length, scale)
        if num_steps > 1 or step_length is not None:
            perturbed = geometry.within_ball(perturbed, wide, radius, scale)
        perturbed = geometry.clip_and_detach(perturbed, wide, clip)
    return perturbed.astype(x.dtype)
