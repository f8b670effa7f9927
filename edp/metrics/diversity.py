"""Diversity of the members of an ensemble, one value per example.

Every function takes member probabilities, a NumPy or JAX array (traced or not), and
returns [N] of the same kind, in float32 or better; the caller reduces. Entropies and
divergences are in nats. The diversity of a single member is 0.
"""

from typing import Any

from edp.errors import InputError
from edp.metrics.scores import EPSILON

# An array of NumPy (2.0 or later) or JAX: anything with `__array_namespace__`.
Array = Any


def pairwise_kl(probs: Array) -> Array:
    """Returns the mean KL divergence over ordered pairs of members, [N].

    The mean over i != j of KL(p_i || p_j) = sum_k p_ik (log p_ik - log p_jk),
    computed as the sum over k of the sample covariance across members of p and
    log p. The two are equal, but the covariance is linear in M and keeps the small
    differences of similar members in float32.

    Args:
      probs: member probabilities [M, N, K].

    Raises:
      InputError: `probs` is not [M, N, K]. All functions of this module raise it.
    """
    probs = _members(probs)
    log_probs = probs.__array_namespace__().log(probs + EPSILON)
    one, other = (x - x.mean(0, keepdims=True) for x in (probs, log_probs))
    products = one * other
    return products.sum((0, -1)) / max(len(probs) - 1, 1)


def disagreement_rate(probs: Array) -> Array:
    """Returns the fraction of member pairs that predict different classes, [N].

    Args:
      probs: member probabilities [M, N, K].
    """
    probs = _members(probs)
    num_members = len(probs)
    predicted = probs.argmax(-1)
    differ = (predicted[:, None] != predicted[None]).sum((0, 1))
    return differ / max(num_members * (num_members - 1), 1)


def predictive_entropy(probs: Array) -> Array:
    """Returns the entropy of the predictive distribution, [N].

    The total uncertainty of an ensemble: H(mean_m p_m). `mutual_information` is the
    part of it that comes from the differences between members.

    Args:
      probs: member probabilities [M, N, K], averaged over members, or the
        probabilities of one predictor [N, K].
    """
    if probs.ndim == 2:
        return _entropy(_wide(probs))
    return _entropy(_members(probs).mean(0))


def mutual_information(probs: Array) -> Array:
    """Returns H(mean_m p_m) - mean_m H(p_m), [N].

    The mutual information of prediction and member (Depeweg et al., 2018), from 0
    to log min(M, K); rounding can make it slightly negative.

    Args:
      probs: member probabilities [M, N, K].
    """
    probs = _members(probs)
    return _entropy(probs.mean(0)) - _entropy(probs).mean(0)


def variance(probs: Array) -> Array:
    """Returns the variance across members, summed over classes, [N].

    Σ_k Var_m[p_mk], the mean over the M members of (p_mk − p̄_k)². It equals the mean
    Brier score of the members minus that of their mean, for any label.

    Args:
      probs: member probabilities [M, N, K].
    """
    return _members(probs).var(0).sum(-1)


def attribution_diversity(gradients: Array) -> Array:
    """Returns the mean of 1 - cos over pairs of members' input gradients, [N].

    0 where all members attribute their prediction to the same directions of the
    input; 1 where their gradients are orthogonal; up to 2. (After the gradient
    alignment of Kariyappa & Qureshi, 2019, which is that of the losses.) A gradient
    of zero has no direction: its cosines count as 0.

    Args:
      gradients: of a logit with respect to the input [M, N, ...]; see
        `edp.evaluation.attribution.attributions`.
    """
    if gradients.ndim < 3 or 0 in gradients.shape:
        raise InputError(
            f"gradients has shape {tuple(gradients.shape)}; accepted: [M, N, ...] with "
            "at least one axis of the input"
        )
    xp = gradients.__array_namespace__()
    num_members, num_examples = gradients.shape[:2]
    if num_members == 1:
        return xp.zeros(num_examples, dtype=xp.result_type(gradients.dtype, xp.float32))
    flat = _wide(gradients.reshape(num_members, num_examples, -1))
    largest = xp.abs(flat).max(-1)[..., None]  # so that squares do not underflow
    flat = flat / xp.where(largest > 0, largest, 1)
    norm = xp.sqrt((flat * flat).sum(-1))[..., None]
    unit = flat / xp.where(norm > 0, norm, 1)
    # Σ_{i≠j} cos_ij = ‖Σ_i u_i‖² - Σ_i ‖u_i‖².
    total = unit.sum(0)
    cosines = (total * total).sum(-1) - (unit * unit).sum((0, -1))
    return 1 - cosines / (num_members * (num_members - 1))


def _entropy(probs: Array) -> Array:
    """Computes the entropy over the last axis."""
    return -(probs * probs.__array_namespace__().log(probs + EPSILON)).sum(-1)


def _members(probs: Array) -> Array:
    """Returns `_wide` probabilities [M, N, K]; raises InputError for another shape."""
    if probs.ndim != 3 or 0 in probs.shape:
        raise InputError(
            f"probs has shape {tuple(probs.shape)}; accepted: [M, N, K] with M, N, K "
            ">= 1"
        )
    return _wide(probs)


def _wide(probs: Array) -> Array:
    """Casts to float32 or better, because 1e-12 is 0 in float16."""
    xp = probs.__array_namespace__()
    return probs.astype(xp.result_type(probs.dtype, xp.float32), copy=False)
