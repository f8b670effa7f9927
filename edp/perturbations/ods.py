"""Output-diversified sampling, plain and scaled by confidence."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from edp.perturbations import geometry, objectives

LogitsFn = Callable[[jax.Array], jax.Array]


def ods(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """Moves x so that one network's outputs change in a random direction.

    x̃ = x + η√D g/‖g‖₂ with g = ∇ₓ Σ_k w_k softmax(f(x)/τ)_k and w ~ U(−1, 1)^K
    per example (Tashiro, Song and Ermon, NeurIPS 2020, eq. 2; in distillation:
    arXiv 2110.14149, eq. 6). Members of an ensemble answer such a move of one
    of them differently, which is what makes it reveal diversity.

    Args:
      key: PRNG key.
      logits_fn: x [B, ...] -> logits [B, K] of one network (of an ensemble: one
        member picked at random per batch).
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the move has L2 length η√D, where
        D is the number of elements of one input. The paper uses 1/255.
      temperature: τ of the softmax.
      clip: range of valid inputs, or None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input whose
      gradient is zero or not finite stays as it is.
    """
    direction, _ = _direction(key, logits_fn, x, temperature)
    moved = x + geometry.radius(x, step_size) * direction
    return geometry.settle(moved, x, clip)


def conf_ods(
    key: jax.Array,
    logits_fn: LogitsFn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """`ods` with each step scaled by the network's confidence on that input.

    The step is max_k softmax(f(x)/τ)_k · η√D: inputs on which the network is
    unsure, and members differ already, are moved less (arXiv 2110.14149,
    section 3.3). Arguments and result are those of `ods`.
    """
    direction, confidence = _direction(key, logits_fn, x, temperature)
    confidence = jnp.nan_to_num(confidence)  # logits that overflowed: no move
    length = geometry.radius(x, step_size) * geometry.per_example(confidence, x)
    return geometry.settle(x + length * direction, x, clip)


def _direction(key, logits_fn, x, temperature):
    """The unit gradient [B, ...] and the confidence [B]."""
    logits, pull_back = jax.vjp(logits_fn, x)
    chex.assert_rank(logits, 2)
    cotangent = objectives.random_output(key, logits[None], temperature)[0]
    (gradient,) = pull_back(cotangent.astype(logits.dtype))
    scaled = logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) / temperature
    return geometry.unit(gradient), jax.nn.softmax(scaled, axis=-1).max(axis=-1)
