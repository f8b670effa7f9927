"""Losses that return one value per example; the caller reduces."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from edp.errors import InputError


def log_probs(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Computes log softmax(logits / τ) over the last axis, in float32 or better."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jax.nn.log_softmax(logits / temperature, axis=-1)


def mean_log_probs(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Computes the log of the mean of the members' tempered probabilities.

    Args:
      logits: [M, ..., K].
      temperature: τ.

    Returns:
      [..., K].
    """
    members = log_probs(logits, temperature)
    return jax.nn.logsumexp(members, axis=0) - jnp.log(logits.shape[0])


def geometric_mean_log_probs(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Computes the log of the members' normalised geometric mean, tempered.

    That is log softmax of the mean of the members' logits / τ. Its confidence is that
    of a typical member even where members disagree, unlike `mean_log_probs`.

    Args:
      logits: [M, ..., K].
      temperature: τ.

    Returns:
      [..., K].
    """
    return log_probs(log_probs(logits).mean(axis=0), temperature)


def check_classes(logits: jax.Array) -> None:
    """Raises InputError for logits [..., K] of one class.

    Its probability is 1 whatever the input, and every loss and gradient 0.
    """
    if logits.shape[-1] == 1:
        raise InputError(
            f"logits have shape {logits.shape}; accepted: [..., K] of at least 2 "
            "classes (for the one logit z of a sigmoid: 0 and z)"
        )


def check_labels(labels: jax.Array, num_classes: int) -> None:
    """Raises InputError for integer labels outside 0..K-1, if their values are known.

    Labels that are traced (inside `jit`, `vmap` or `shard_map`) and distributions are
    not checked.

    Args:
      labels: integers [B] or distributions [B, K].
      num_classes: K.
    """
    if labels.ndim != 1 or isinstance(labels, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # they may be constants of a traced function
        if ((labels < 0) | (labels >= num_classes)).any():
            raise InputError(
                f"labels has values from {labels.min()} to {labels.max()}; accepted: "
                f"classes 0 to {num_classes - 1}"
            )


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Computes −log softmax(logits)_y, or −Σ_k y_k log softmax(logits)_k.

    Args:
      logits: [..., B, K].
      labels: integers [B] or distributions [B, K], shared by the leading axes.
      label_smoothing: ε in [0, 1]; the target is (1 − ε) y + ε/K (Szegedy et al.,
        2016, arXiv 1512.00567, section 7).

    Returns:
      [..., B]. Inside `jit` an integer label outside 0..K-1 cannot raise: its value
      is 0, and so is its gradient (without smoothing).

    Raises:
      InputError: for logits of one class; outside `jit`, for integer labels outside
        0..K-1.
    """
    check_classes(logits)
    chex.assert_rank(labels, {1, 2})
    chex.assert_axis_dimension(logits, -2, labels.shape[0])
    if label_smoothing:
        uniform = -log_probs(logits).mean(axis=-1)
        own = cross_entropy(logits, labels)
        return (1 - label_smoothing) * own + label_smoothing * uniform
    if labels.ndim == 2:
        chex.assert_axis_dimension(logits, -1, labels.shape[1])
        labels = jnp.expand_dims(labels, range(logits.ndim - 2))
        terms = jnp.where(labels > 0, log_probs(logits), 0)
        return -(labels * terms).sum(axis=-1)
    check_labels(labels, logits.shape[-1])
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    one_hot = jnp.expand_dims(one_hot, range(logits.ndim - 2))
    return -jnp.where(one_hot, log_probs(logits), 0).sum(axis=-1)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes whether the largest logit is that of the label.

    Args:
      logits: [..., B, K].
      labels: integers [B] or distributions [B, K].

    Returns:
      Booleans [..., B]; for distributions, the label probability of the predicted
      class.
    """
    chex.assert_rank(labels, {1, 2})
    chex.assert_axis_dimension(logits, -2, labels.shape[0])
    if labels.ndim == 2:
        chex.assert_axis_dimension(logits, -1, labels.shape[1])
    predicted = logits.argmax(-1)
    labels = jnp.expand_dims(labels, range(predicted.ndim - 1))
    if labels.ndim == predicted.ndim:
        return predicted == labels
    return (jax.nn.one_hot(predicted, labels.shape[-1]) * labels).sum(-1)


def kl_divergence(target_log_probs: jax.Array, logits_log_probs: jax.Array):
    """Computes KL(p ‖ q) = Σ_k p_k (log p_k − log q_k).

    Args:
      target_log_probs: log p [..., K]; classes of probability zero contribute 0.
      logits_log_probs: log q [..., K].

    Returns:
      [...].
    """
    chex.assert_equal_shape([target_log_probs, logits_log_probs])
    p = jnp.exp(target_log_probs)
    difference = jnp.where(p > 0, target_log_probs - logits_log_probs, 0)
    return (p * difference).sum(axis=-1)


def distillation(
    target_log_probs: jax.Array, logits: jax.Array, temperature: float
) -> jax.Array:
    """Computes τ² KL(target ‖ softmax(logits / τ)) (Hinton et al., 2015, section 2).

    The factor τ² keeps the scale of the gradient when τ changes.

    Args:
      target_log_probs: log of the teacher's tempered probabilities [..., B, K].
      logits: the student's [..., B, K].
      temperature: τ, that of the target.

    Returns:
      [..., B].
    """
    student = log_probs(logits, temperature)
    return temperature**2 * kl_divergence(target_log_probs, student)


def maximum_mean_discrepancy(
    a: jax.Array, b: jax.Array, widths: Sequence[float] = (2.0, 10.0, 20.0, 50.0)
) -> jax.Array:
    """Computes ⟨k(a, a')⟩ + ⟨k(b, b')⟩ − 2 ⟨k(a, b)⟩, means over all pairs of rows.

    The biased estimate of the squared discrepancy (Gretton et al., *A Kernel
    Two-Sample Test*, 2012, eq. 5): at least 0, and 0 where the rows are the same.
    The kernel is k(x, y) = Σ_s exp(−‖x − y‖² / (2 s)).

    Args:
      a: [N, D].
      b: [N', D].
      widths: the values of s.

    Returns:
      [], in float32 or better.
    """
    a, b = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (a, b))

    def mean_kernel(a, b):
        distance = jnp.square(a[:, None] - b[None]).sum(axis=-1)
        return sum(jnp.exp(-distance / (2 * s)) for s in widths).mean()

    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
