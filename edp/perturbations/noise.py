"""The two perturbations that look at no model."""

import jax
import jax.numpy as jnp

from edp.perturbations import geometry


def none(key, logits_fn, x, **unused) -> jax.Array:
    """Returns x itself: plain distillation (Hinton et al., 2015)."""
    del key, logits_fn, unused
    return x


def gaussian(
    key: jax.Array,
    logits_fn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """Adds noise: x̃ = x + η n, n ~ N(0, 1), of expected length near η√D.

    The paper's control for "does any perturbation help?" (arXiv 2110.14149,
    section 4).

    Args:
      key: PRNG key.
      logits_fn: ignored.
      x: inputs [B, ...].
      step_size: η, the standard deviation, in pixel units of [0, 1].
      temperature: ignored.
      clip: range of valid inputs, or None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it.
    """
    del logits_fn, temperature
    noise = jax.random.normal(key, x.shape, jnp.promote_types(x.dtype, jnp.float32))
    return geometry.settle(x + step_size * noise, x, clip)
