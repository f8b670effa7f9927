"""Mixtures of inputs and of their labels; they look at no model."""

import chex
import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.perturbations import geometry


def mixup(
    key: jax.Array,
    logits_fn,
    x: jax.Array,
    *,
    mixup_alpha: float = 1.0,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """Mixes each input with another of the batch: x̃_i = λ_i x_i + (1 − λ_i) x_π(i).

    λ ~ Beta(a, a) per example and π a random permutation (Zhang, Cissé, Dauphin and
    Lopez-Paz, *mixup*, ICLR 2018, arXiv 1710.09412, eq. 1). `mix_labels` mixes the
    labels alike; the teachers' predictions on a mixture need none.

    Args:
      key: PRNG key.
      logits_fn: ignored.
      x: inputs [B, ...]; of one example alone the mixture is that example.
      mixup_alpha: a > 0; 1 draws λ uniformly, smaller ones nearer to 0 or 1.
      clip: range of valid inputs, or None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it.

    Raises:
      InputError: for a `mixup_alpha` that is not above 0.
    """
    del logits_fn
    return geometry.settle(_mix(key, x, mixup_alpha), x, clip)


def mix_labels(
    key: jax.Array, probs: jax.Array, *, mixup_alpha: float = 1.0
) -> jax.Array:
    """Mixes labels as `mixup` does inputs: ỹ_i = λ_i y_i + (1 − λ_i) y_π(i).

    Cross-entropy with ỹ_i is λ_i CE(y_i) + (1 − λ_i) CE(y_π(i)) (arXiv 1710.09412,
    eq. 1).

    Args:
      key: PRNG key, that of `mixup`.
      probs: label distributions [B, K].
      mixup_alpha: a > 0, that of `mixup`.

    Returns:
      Label distributions [B, K] in float32 or better.

    Raises:
      InputError: for a `mixup_alpha` that is not above 0.
    """
    chex.assert_rank(probs, 2)
    return _mix(key, probs, mixup_alpha)


def _mix(key: jax.Array, values: jax.Array, mixup_alpha: float) -> jax.Array:
    """λ_i v_i + (1 − λ_i) v_π(i) for values [B, ...]; λ and π follow from key and B."""
    if not mixup_alpha > 0:
        raise InputError(f"mixup_alpha={mixup_alpha} must be above 0")
    share_key, order_key = jax.random.split(key)
    number = values.shape[0]
    # In float32 for all dtypes: in float64 another λ would be drawn.
    share = jax.random.beta(
        share_key, mixup_alpha, mixup_alpha, (number,), jnp.float32
    ).astype(jnp.promote_types(values.dtype, jnp.float32))
    share = geometry.per_example(share, values)
    other = values[jax.random.permutation(order_key, number)]
    return share * values + (1 - share) * other
