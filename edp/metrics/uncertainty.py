"""Uncertainty scores of a predictor, one per input."""

import jax

from edp import metrics


def scores(probs: jax.Array) -> dict[str, jax.Array]:
    """Computes uncertainties of member probabilities [S, B, K]; higher = less certain.

    Returns:
      {name: [B]}: `max_probability` (1 − the largest mean probability) and
      `predictive_entropy`; with several members also `mutual_information` and
      `pairwise_kl`, which measure only the disagreement of the members.
    """
    result = {
        "max_probability": 1 - probs.mean(0).max(-1),
        "predictive_entropy": metrics.predictive_entropy(probs),
    }
    if probs.shape[0] > 1:
        result["mutual_information"] = metrics.mutual_information(probs)
        result["pairwise_kl"] = metrics.pairwise_kl(probs)
    return result
