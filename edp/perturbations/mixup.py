"""Mixup of inputs and of labels; uses no model."""

from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.perturbations import checks, geometry

# Labels -> a value, such as a loss.
LabelFn = Callable[[jax.Array], jax.Array]


def mixup(
    key: jax.Array,
    logits_fn,
    x: jax.Array,
    *,
    mixup_alpha: float = 1.0,
    clip: checks.Clip = (0.0, 1.0),
) -> jax.Array:
    """Mixes each input with another of the batch: x̃_i = λ_i x_i + (1 − λ_i) x_π(i).

    λ ~ Beta(a, a) per example and π a random permutation (Zhang, Cissé, Dauphin and
    Lopez-Paz, *mixup*, ICLR 2018, arXiv 1710.09412, eq. 1). `mix_labels` mixes the
    labels in the same way; the teachers' predictions on a mixture need no labels.

    Args:
      key: PRNG key.
      logits_fn: ignored.
      x: inputs [B, ...]; a batch of one example is returned as it is.
      mixup_alpha: a > 0; 1 samples λ uniformly, smaller values nearer to 0 or 1.
      clip: range of valid inputs in the units of x, or None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it.

    Raises:
      InputError: for a `mixup_alpha` that is not above 0; see also
        `checks.check_input`.
    """
    del logits_fn
    checks.check_input(x, clip)
    return geometry.clip_and_detach(_mix(key, x, mixup_alpha), x, clip)


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


def mixup_pairs(
    key: jax.Array, batch_size: int, *, mixup_alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Draws what training on labels with mixup mixes: λ, one per batch, and pairs.

    Training on x̃_i = λ x_i + (1 − λ) x_π(i) with the loss λ CE(y_i) +
    (1 − λ) CE(y_π(i)), where λ ~ Beta(a, a) (arXiv 1710.09412, figure 1). `mixup`
    draws a λ per example instead.

    Args:
      key: PRNG key.
      batch_size: B.
      mixup_alpha: a > 0.

    Returns:
      λ [] in float32, and the random permutation π [B].

    Raises:
      InputError: for a `mixup_alpha` that is not above 0.
    """
    _check_alpha(mixup_alpha)
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, mixup_alpha, mixup_alpha, dtype=jnp.float32)
    return share, jax.random.permutation(order_key, batch_size)


def mix_batch(
    key: jax.Array, batch: Mapping[str, jax.Array], *, mixup_alpha: float
) -> tuple[jax.Array, Callable[[LabelFn], jax.Array]]:
    """Mixes a batch for training on labels with `mixup_pairs`.

    Args:
      key: PRNG key.
      batch: `image` [B, ...] and `label` [B] or [B, K].
      mixup_alpha: a > 0.

    Returns:
      The mixed images, and (f) -> λ f(y) + (1 − λ) f(y_π) for a function f of the
      labels, such as the loss.

    Raises:
      InputError: for a `mixup_alpha` that is not above 0, and for images of integers,
        whose mixtures would pass for pixels in [0, 1].
    """
    image, label = batch["image"], batch["label"]
    checks.check_input(image, clip=None)
    share, other = mixup_pairs(key, len(label), mixup_alpha=mixup_alpha)

    def of_labels(of: LabelFn) -> jax.Array:
        return share * of(label) + (1 - share) * of(label[other])

    return share * image + (1 - share) * image[other], of_labels


def _mix(key: jax.Array, values: jax.Array, mixup_alpha: float) -> jax.Array:
    """Computes λ_i v_i + (1 − λ_i) v_π(i) for v [B, ...]; key and B fix λ and π."""
    _check_alpha(mixup_alpha)
    share_key, order_key = jax.random.split(key)
    batch_size = values.shape[0]
    # Sampled in float32 for every dtype: float64 would sample another λ.
    share = jax.random.beta(
        share_key, mixup_alpha, mixup_alpha, (batch_size,), jnp.float32
    ).astype(jnp.promote_types(values.dtype, jnp.float32))
    share = geometry.per_example(share, values)
    other = values[jax.random.permutation(order_key, batch_size)]
    return share * values + (1 - share) * other


def _check_alpha(mixup_alpha: float) -> None:
    if not mixup_alpha > 0:
        raise InputError(
            f"mixup_alpha={mixup_alpha} is out of range; accepted: numbers above 0"
        )
