"""Measures of disagreement, as gradients with respect to the members' logits.

Each quantity maps `(key, logits [M, B, K], temperature)` to a cotangent
`[M, B, K]`: the gradient of the quantity with respect to the logits, up to one
positive factor per example. It is scaled so that its largest entry is 1 (or all
are exactly 0 where the members agree). `disagreement` pulls it back to the input.

`jax.grad` of the quantity fails in float32 on converged members, in two ways.
Equal members leave a rounding error instead of zero, which normalisation amplifies
to a full step. Confident members (logit margins of 30 and more) underflow: p is 1
on the top class and every difference from it is lost. The cotangents are therefore
written out: deviations between members are `expm1` of log-probability differences
(zero where those are zero), the top class's entries are minus the sum of the others
(the rows sum to zero), and probabilities are relative to the largest one that is
not on the top class.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Log-probabilities within this many ulps (of the largest in the example) count as
# equal: they differ only in the order of the operations.
_ROUNDING_ULPS = 8
# Lowest log-probability. Masked classes, whose logits are -1e9 or -inf, have it: they
# make no difference NaN, and do not count as the largest.
_LOWEST = -1e6


class _Members(NamedTuple):
    """Members' tempered predictions in the terms that the cotangents use."""

    log_probs: jax.Array  # [M, B, K]
    deviation: jax.Array  # [M, B, K]: log p_m - max_m log p_m, 0 within rounding
    highest: jax.Array  # [1, B, K]: max_m log p_m
    off_top: jax.Array  # [1, B, K]: False on the pooled top class
    shift: jax.Array  # [1, B, 1]: the largest log p off the pooled top class


def _members(logits: jax.Array, temperature: float) -> _Members:
    chex.assert_rank(logits, 3)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # First, so that dividing by τ rounds no more than the log-probabilities do.
    logits = logits - logits.max(axis=-1, keepdims=True)
    log_probs = jax.nn.log_softmax(logits / temperature, axis=-1)
    log_probs = jnp.maximum(log_probs, _LOWEST)
    highest = log_probs.max(axis=0, keepdims=True)
    deviation = log_probs - highest
    largest = jnp.where(log_probs > _LOWEST, -log_probs, 0)
    largest = largest.max(axis=(0, 2), keepdims=True)
    rounding = jnp.finfo(logits.dtype).eps * _ROUNDING_ULPS * jnp.maximum(largest, 1)
    deviation = jnp.where(-deviation <= rounding, 0, deviation)
    pooled = jax.nn.logsumexp(log_probs, axis=0, keepdims=True)
    off_top = _classes(logits) != pooled.argmax(axis=-1, keepdims=True)
    shift = jnp.where(off_top, highest, -jnp.inf).max(axis=-1, keepdims=True)
    shift = jnp.where(shift > _LOWEST, shift, 0)  # without another class
    return _Members(log_probs, deviation, highest, off_top, shift)


def _classes(logits: jax.Array) -> jax.Array:
    """Returns the indices of the classes, [1, 1, K]."""
    return jnp.arange(logits.shape[-1])[None, None]


def _through_softmax(members: _Members, weights: jax.Array) -> jax.Array:
    """Computes p_j (g_j - sum_k p_k g_k) exp(-shift) for weights g [M, B, K]."""
    log_probs = members.log_probs
    top = log_probs.argmax(axis=-1, keepdims=True)
    is_top = _classes(log_probs) == top
    mean = (jnp.exp(log_probs) * weights).sum(axis=-1, keepdims=True)
    relative = jnp.exp(jnp.where(is_top, -jnp.inf, log_probs - members.shift))
    others = relative * (weights - mean)
    return jnp.where(is_top, -others.sum(axis=-1, keepdims=True), others)


def _from_mean(members: _Members) -> jax.Array:
    """Computes (p_m - mean_m p_m) exp(-shift), [M, B, K]."""
    highest = jnp.where(members.off_top, members.highest - members.shift, -jnp.inf)
    below = jnp.exp(highest) * jnp.expm1(members.deviation)
    others = below - below.mean(axis=0, keepdims=True)
    top = -others.sum(axis=-1, keepdims=True)
    return jnp.where(members.off_top, others, top)


def _scaled(cotangent: jax.Array) -> jax.Array:
    """Divides each example's cotangent [M, B, K] by its largest magnitude."""
    largest = jnp.abs(cotangent).max(axis=(0, 2), keepdims=True)
    scaled = jnp.where(largest > 0, cotangent / jnp.where(largest > 0, largest, 1), 0)
    # XLA may compute the cotangent twice, with another rounding for its maximum.
    return jnp.clip(scaled, -1, 1)


def variance(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Computes the cotangent of the (population) variance, summed over classes.

    V = sum_k Var_m[p_mk], with dV/dp_mk = 2 (p_mk - mean_m p_mk) / M.
    """
    del key
    members = _members(logits, temperature)
    return _scaled(_through_softmax(members, _from_mean(members)))


def mutual_information(
    key: jax.Array, logits: jax.Array, temperature: float
) -> jax.Array:
    """Computes the cotangent of H(mean_m p_m) - mean_m H(p_m).

    It is the mean KL divergence from each member to the mean.
    """
    del key
    members = _members(logits, temperature)
    # log1p, because the mean of M ones may round to a value other than 1.
    mean = jnp.log1p(jnp.expm1(members.deviation).mean(axis=0, keepdims=True))
    return _scaled(_through_softmax(members, members.deviation - mean))


def pairwise_kl(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Computes the cotangent of the mean KL(p_i || p_j) over ordered pairs i != j."""
    del key
    members = _members(logits, temperature)
    weights = members.deviation - members.deviation.mean(axis=0, keepdims=True)
    return _scaled(_through_softmax(members, weights) + _from_mean(members))


def projection(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Computes the cotangent of sum_m w_m . (p_m - mean_m p_m).

    w_m ~ U(-1, 1)^K is sampled per example: a random direction in the space in which
    the members differ. Its expected square is proportional to the variance. Its
    gradient, unlike the variance's, does not vanish where the members predict the
    same by chance. Examples on which the members are the same function, to rounding,
    get zero.
    """
    members = _members(logits, temperature)
    weights = jax.random.uniform(key, logits.shape, members.log_probs.dtype, -1, 1)
    weights = weights - weights.mean(axis=0, keepdims=True)
    differ = (members.deviation != 0).any(axis=(0, 2), keepdims=True)
    return _scaled(jnp.where(differ, _through_softmax(members, weights), 0))


def random_output(key: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Computes the cotangent of sum_k w_k p_k, w ~ U(-1, 1)^K per example, for `ods`.

    It measures no disagreement, so it is not in `QUANTITIES`; it shares their
    arithmetic.
    """
    members = _members(logits, temperature)
    weights = jax.random.uniform(key, logits.shape, members.log_probs.dtype, -1, 1)
    return _scaled(_through_softmax(members, weights))


def difference_of_two(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes p_0 − p_1 of two members without underflow.

    Args:
      logits: [2, B, K].

    Returns:
      d [B, K], of magnitude up to 2 (K − 1), and c [B, 1] with p_0 − p_1 = d exp(c).
      Log-probabilities that are equal to rounding (of the largest in the example)
      count as equal.
    """
    members = _members(logits, 1.0)
    return 2 * _from_mean(members)[0], members.shift[0]


QUANTITIES: dict[str, Callable[..., jax.Array]] = {
    "variance": variance,
    "mutual_information": mutual_information,
    "pairwise_kl": pairwise_kl,
    "projection": projection,
}
