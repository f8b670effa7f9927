"""How unsure a predictor is of each input."""

import jax

from edp import metrics


def scores(probs: jax.Array) -> dict[str, jax.Array]:
    """Uncertainty scores of member probabilities [S, B, K]; higher = less certain.

    Returns:
      {name: [B]}: `max_probability` (as 1 − the pooled prediction's largest) and
      `predictive_entropy`; with several members also `mutual_information` and
      `pairwise_kl`, which see only what the members disagree about.
    """
    result = {
        "max_probability": 1 - probs.mean(0).max(-1),
        "predictive_entropy": metrics.predictive_entropy(probs),
    }
    if probs.shape[0] > 1:
        result["mutual_information"] = metrics.mutual_information(probs)
        result["pairwise_kl"] = metrics.pairwise_kl(probs)
    return result
