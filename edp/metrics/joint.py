"""Joint predictions of several labels at once, which marginal scores cannot judge."""

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.scores import EPSILON
from edp.metrics.validation import as_labels, as_members


def joint_nll(probs: ArrayLike, labels: ArrayLike, batches: ArrayLike) -> float:
    """Returns the mean joint negative log-likelihood of batches of labels, in nats.

    -log mean_m Π_t (p_m(y_t | x_t) + 1e-12) over the τ examples of a batch (Osband et
    al., 2022). With τ = 1 it is `nll` of the members' mean; for one member it is τ
    times `nll`, both of the examples in `batches`. Members that disagree in the same
    way on examples of one batch are better than their mean.

    Args:
      probs: member probabilities [M, N, K].
      labels: integer classes [N].
      batches: indices of examples [R, τ], such as from `dyadic_batches`.

    Raises:
      InputError: probs that are not probabilities [M, N, K], labels that do not match,
        or batches that are not integers [R, τ] below N.
    """
    probs = as_members(probs)
    num_examples = probs.shape[1]
    labels = as_labels(labels, *probs.shape[1:])
    batches = np.asarray(batches)
    if batches.ndim != 2 or batches.size == 0 or batches.dtype.kind not in "iu":
        raise InputError(
            f"batches has dtype {batches.dtype} and shape {batches.shape}; accepted: "
            "integers [R, τ] with R, τ >= 1"
        )
    if batches.min() < 0 or batches.max() >= num_examples:
        raise InputError(
            f"batches has values from {batches.min()} to {batches.max()}; accepted: "
            f"examples 0 to {num_examples - 1}"
        )
    log_probs = np.log(probs[:, np.arange(num_examples), labels] + EPSILON)
    joint = log_probs[:, batches].sum(axis=-1)
    largest = joint.max(axis=0)
    mean = np.exp(joint - largest).mean(axis=0)
    return float(-(largest + np.log(mean)).mean())


def dyadic_batches(
    num_examples: int,
    *,
    num_batches: int = 1000,
    tau: int = 10,
    kappa: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Draws batches of τ examples from κ anchors each (dyadic sampling).

    Independent examples hardly tell a joint prediction from its marginals; repeated
    ones do (Osband et al., 2022).

    Args:
      num_examples: N.
      num_batches: R.
      tau: τ, examples of a batch, drawn from its anchors with replacement.
      kappa: κ, distinct anchors of a batch.
      seed: of the draws.

    Returns:
      Indices below N, [R, τ].

    Raises:
      InputError: a size below 1, or more anchors than examples.
    """
    if min(num_batches, tau, kappa) < 1 or kappa > num_examples:
        raise InputError(
            f"num_batches={num_batches}, tau={tau}, kappa={kappa} is out of range; "
            f"accepted: at least 1 each, and kappa up to {num_examples}"
        )
    rng = np.random.default_rng(seed)
    anchors = np.stack(
        [
            rng.choice(num_examples, kappa, replace=False, shuffle=False)
            for _ in range(num_batches)
        ]
    )
    chosen = rng.integers(kappa, size=(num_batches, tau))
    return np.take_along_axis(anchors, chosen, axis=1)
