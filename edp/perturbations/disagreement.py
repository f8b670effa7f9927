"""The adversarial-disagreement step: ascend what the members disagree about."""

from collections.abc import Callable

import jax

from edp.errors import InputError
from edp.perturbations import geometry
from edp.perturbations.objectives import QUANTITIES


def disagreement(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: tuple[float, float] | None = (0.0, 1.0),
    quantity: str = "variance",
    num_steps: int = 1,
    step_length: float | None = None,
) -> jax.Array:
    """Moves x in the direction in which the members' outputs come apart.

    Each of `num_steps` steps goes `step_length` along the normalised gradient
    of the chosen quantity of the tempered probabilities p_m = softmax(f_m(x)/τ),
    then back onto the L2 ball of radius η√D round x and into `clip`. The default
    quantity is the design's: Σ_k Var_m[p_mk], the variance over the members.

    Works on members of any confidence, in float32: the gradient's direction is
    exact at logit margins where the quantity itself underflows, and members
    that are the same function leave x exactly as it is.

    Args:
      key: PRNG key (used by quantities that draw at random).
      logits_fn: x [B, ...] -> logits [M, B, K] of all M members. Its gradient
        decides the memory: for that of a few members at once, loop over groups
        of them under `jax.checkpoint`, as `edp.ensemble.logits` does.
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the ball's radius is η√D, where D
        is the number of elements of one input.
      temperature: τ of the softmax.
      clip: range of valid inputs, or None.
      quantity: 'variance', 'mutual_information', 'pairwise_kl' or 'projection';
        see `edp.perturbations.objectives`.
      num_steps: gradient steps, at least 1; each costs a forward and a backward
        pass of all members.
      step_length: L2 length of one step; η√D / num_steps if None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input with
      no usable direction stays as it is.

    Raises:
      InputError: for an unknown quantity or a `num_steps` below 1.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"quantity={quantity!r} is not known; accepted: {', '.join(QUANTITIES)}"
        )
    if num_steps < 1:
        raise InputError(f"num_steps={num_steps} must be at least 1")
    radius = geometry.radius(x, step_size)
    length = radius / num_steps if step_length is None else step_length
    moved = x
    # Unrolled: on CPU, convolutions inside a loop primitive run many times slower.
    for step_key in jax.random.split(key, num_steps):
        logits, pull_back = jax.vjp(logits_fn, moved)
        cotangent = QUANTITIES[quantity](step_key, logits, temperature)
        (gradient,) = pull_back(cotangent.astype(logits.dtype))
        moved = moved + length * geometry.unit(gradient)
        if num_steps > 1 or step_length is not None:
            moved = geometry.within_ball(moved, x, radius)
        moved = geometry.settle(moved, x, clip)
    return moved
