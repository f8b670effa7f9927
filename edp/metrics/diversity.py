"""How far the members of an ensemble differ, one value per example.

Every function takes member probabilities, a NumPy or a JAX array (traced or not), and
returns [N] of the same kind, in float32 or better; the caller reduces. Entropies and
divergences are in nats. One member has no diversity: 0.
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
    log p. The two are equal; this one is linear in M, and does not lose the small
    differences of like members to cancellation in float32.

    Args:
      probs: member probabilities [M, N, K].

    Raises:
      InputError: `probs` is not [M, N, K]. So do all functions of this module.
    """
    probs = _members(probs)
    log_probs = probs.__array_namespace__().log(probs + EPSILON)
    products = (probs - probs.mean(0)) * (log_probs - log_probs.mean(0))
    return products.sum((0, -1)) / max(len(probs) - 1, 1)


def disagreement_rate(probs: Array) -> Array:
    """Returns the share of pairs of members that predict different classes, [N].

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

    The total uncertainty of an ensemble: H(mean_m p_m), of which
    `mutual_information` is the part that comes from the members' differences.

    Args:
      probs: member probabilities [M, N, K], whose mean over members is taken, or
        the probabilities of one predictor [N, K], which are taken as they are.
    """
    if probs.ndim == 2:
        return _entropy(_wide(probs))
    return _entropy(_members(probs).mean(0))


def mutual_information(probs: Array) -> Array:
    """Returns H(mean_m p_m) - mean_m H(p_m), [N].

    The mutual information of prediction and member (Depeweg et al., 2018), from 0
    to log min(M, K); rounding can take it a few units of the last place below 0.

    Args:
      probs: member probabilities [M, N, K].
    """
    probs = _members(probs)
    return _entropy(probs.mean(0)) - _entropy(probs).mean(0)


def variance(probs: Array) -> Array:
    """Returns the variance across members, summed over classes, [N].

    Σ_k Var_m[p_mk], the mean over the M members of (p_mk − p̄_k)²: the mean Brier
    score of the members less that of their mean, whatever the label.

    Args:
      probs: member probabilities [M, N, K].
    """
    return _members(probs).var(0).sum(-1)


def _entropy(probs: Array) -> Array:
    """Entropy over the last axis."""
    return -(probs * probs.__array_namespace__().log(probs + EPSILON)).sum(-1)


def _members(probs: Array) -> Array:
    """`_wide` probabilities [M, N, K]; InputError for another shape."""
    if probs.ndim != 3 or 0 in probs.shape:
        raise InputError(
            "member probabilities must be [M, N, K] with M, N, K >= 1, got"
            f" {tuple(probs.shape)}"
        )
    return _wide(probs)


def _wide(probs: Array) -> Array:
    """In float32 at least: in float16, 1e-12 is 0."""
    xp = probs.__array_namespace__()
    return probs.astype(xp.result_type(probs.dtype, xp.float32), copy=False)
