"""Uncertainty scores of a predictor, one per input."""

import chex
import jax
import jax.numpy as jnp

from edp import metrics


def scores(probs: jax.Array) -> dict[str, jax.Array]:
    """Computes uncertainties of member probabilities [S, B, K]; higher = less certain.

    Returns:
      {name: [B]}: `max_probability` (1 − the largest mean probability) and
      `predictive_entropy`; with several members also `mutual_information` and
      `pairwise_kl`, which measure only the disagreement of the members. In float32
      or better.
    """
    probs = _wide(probs)
    result = {
        "max_probability": 1 - probs.mean(0).max(-1),
        "predictive_entropy": metrics.predictive_entropy(probs),
    }
    if probs.shape[0] > 1:
        result["mutual_information"] = metrics.mutual_information(probs)
        result["pairwise_kl"] = metrics.pairwise_kl(probs)
    return result


def all_scores(logits: jax.Array) -> dict[str, jax.Array]:
    """Computes `scores` and `logit_scores` of member logits [S, B, K]."""
    # Widened first: in bfloat16 confident probabilities are all 1.
    logits = _wide(jnp.asarray(logits))
    return scores(jax.nn.softmax(logits, axis=-1)) | logit_scores(logits)


def logit_scores(logits: jax.Array) -> dict[str, jax.Array]:
    """Computes uncertainties of member logits [S, B, K]; higher = less certain.

    Both are of the members' mean logits z, at temperature 1. They see the size of the
    logits, which probabilities do not have: energy(z + c) = energy(z) - c.

    Returns:
      {name: float32 [B]}: `energy`, -log Σ_k exp z_k (Liu et al., 2020), and
      `max_logit`, minus the largest logit (Hendrycks et al., 2022).
    """
    chex.assert_rank(logits, 3)
    mean = _wide(logits).mean(0)
    return {
        "energy": -jax.nn.logsumexp(mean, axis=-1),
        "max_logit": -mean.max(-1),
    }


def _wide(x: jax.Array) -> jax.Array:
    """Casts to float32 or better."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
