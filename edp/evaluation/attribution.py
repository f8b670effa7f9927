"""Attributions of the members of an ensemble to the pixels of its inputs."""

import jax
import jax.numpy as jnp

from edp import losses
from edp.models.teachers import Teachers


def attributions(teachers: Teachers, x: jax.Array) -> jax.Array:
    """Computes what each member's logit of the predicted class depends on.

    The gradient with respect to the input of the logit of the class that the members'
    mean probability predicts, one class for all members. For
    `metrics.attribution_diversity`.

    Args:
      teachers: M members that accept gradients.
      x: inputs [B, ...].

    Returns:
      Gradients [M, B, ...].
    """
    predicted = losses.mean_log_probs(teachers.all_logits(x), 1.0).argmax(-1)

    def predicted_logits(x, m):
        logits = teachers.member_logits(m, x)
        return jnp.take_along_axis(logits, predicted[:, None], axis=-1).sum()

    def gradient(m):
        return jax.grad(predicted_logits)(x, m)

    return jax.lax.map(gradient, jnp.arange(teachers.num_members))
