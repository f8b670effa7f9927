"""Distance of predictions from soft labels, such as the distribution of people's."""

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.scores import EPSILON
from edp.metrics.validation import as_probs


def soft_label_scores(probs: ArrayLike, soft_labels: ArrayLike) -> dict[str, float]:
    """Returns how far predictions p are from soft labels q, as means over examples.

    Args:
      probs: probabilities p [N, K].
      soft_labels: probabilities q [N, K].

    Returns:
      `soft_nll`, the cross-entropy -sum_k q_k log(p_k + 1e-12) in nats; `soft_kl`,
      KL(q || p), which is it less the entropy of q; and `soft_tv`, the total variation
      distance, half the sum of the absolute differences, from 0 to 1.

    Raises:
      InputError: if the shapes differ, or rows are not probabilities.
    """
    probs, soft = as_probs(probs), as_probs(soft_labels)
    if soft.shape != probs.shape:
        raise InputError(
            f"soft_labels are {list(soft.shape)}, but probs {list(probs.shape)}; both "
            "must be [N, K]"
        )
    cross_entropy = -(soft * np.log(probs + EPSILON)).sum(axis=1).mean()
    entropy = -(soft * np.log(soft + EPSILON)).sum(axis=1).mean()
    return {
        "soft_nll": float(cross_entropy),
        "soft_kl": float(cross_entropy - entropy),
        "soft_tv": float(abs(soft - probs).sum(axis=1).mean() / 2),
    }
