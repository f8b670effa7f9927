"""Perturbations that use no model: none, and Gaussian noise."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from edp.perturbations import checks, geometry


def none(key, logits_fn, x, **unused) -> jax.Array:
    """Returns x itself, of any dtype: plain distillation (Hinton et al., 2015)."""
    del key, logits_fn, unused
    return x


def gaussian(
    key: jax.Array,
    logits_fn,
    x: jax.Array,
    *,
    step_size: float,
    temperature: float = 1.0,
    clip: checks.Clip = (0.0, 1.0),
    scale: ArrayLike | None = None,
) -> jax.Array:
    """Adds noise: x̃ = x + η n with n ~ N(0, 1), of expected length near η√D.

    The paper's control for whether any perturbation helps (arXiv 2110.14149,
    section 4).

    Args:
      key: PRNG key.
      logits_fn: ignored.
      x: inputs [B, ...].
      step_size: η, the standard deviation, in pixel units of [0, 1].
      temperature: ignored.
      clip: range of valid inputs in the units of x, or None.
      scale: units of x per unit of pixels, a number or [C]; None is 1. See `ods`.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it.

    Raises:
      InputError: see `checks.check_input` and `checks.as_scale`.
    """
    del logits_fn, temperature
    checks.check_input(x, clip)
    scale = checks.as_scale(scale, x)
    noise = jax.random.normal(key, x.shape, jnp.promote_types(x.dtype, jnp.float32))
    step = step_size * noise
    step = step if scale is None else scale * step
    return geometry.clip_and_detach(x + step, x, clip)
