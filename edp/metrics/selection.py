"""Choice of ensemble members that err together as little as possible.

After *Verification-Aided Deep Ensemble Selection* (Amir et al., 2022), with empirical
errors in the place of verified ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.scores import EPSILON
from edp.metrics.validation import as_labels, as_members


def mutual_errors(probs: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Computes how often two members are both wrong.

    Args:
      probs: member probabilities [M, N, K].
      labels: integer classes [N].

    Returns:
      E [M, M]: E_ij is the fraction of examples on which members i and j are both
      wrong; the diagonal has their error rates.

    Raises:
      InputError: probs that are not probabilities [M, N, K], or labels that do not
        match.
    """
    probs = as_members(probs)
    labels = as_labels(labels, *probs.shape[1:])
    wrong = (probs.argmax(axis=-1) != labels).astype(np.float64)
    return wrong @ wrong.T / wrong.shape[1]


def choose_by_mutual_errors(errors: ArrayLike) -> list[int]:
    """Orders members greedily, so that the first ones rarely err together.

    The first is the member with the lowest error rate. Each further one has the lowest
    mean mutual error with those chosen, then the lowest error rate, then the lowest
    index.

    Args:
      errors: E [M, M], from `mutual_errors`.

    Returns:
      All members in the order of their choice; the first m are the choice of m.

    Raises:
      InputError: a matrix that is not square, symmetric and finite.
    """
    errors = np.asarray(errors, np.float64)
    square = errors.ndim == 2 and errors.shape[0] == errors.shape[1] > 0
    if not (square and np.isfinite(errors).all() and np.allclose(errors, errors.T)):
        raise InputError(
            f"errors has shape {errors.shape}, or is not symmetric and finite; "
            "accepted: a matrix of mutual errors [M, M]"
        )
    own = np.diag(errors)
    chosen = [int(own.argmin())]
    while len(chosen) < len(own):
        rest = [m for m in range(len(own)) if m not in chosen]
        # Rounded, because equal means of different sums can differ in the last bit.
        mean = errors[:, chosen].mean(axis=1).round(12)
        chosen.append(min(rest, key=lambda m: (mean[m], own[m], m)))
    return chosen


def choose_by_nll(probs: ArrayLike, labels: ArrayLike) -> list[int]:
    """Orders members greedily by the NLL of the mean of those chosen.

    Greedy forward selection (Caruana et al., 2004) without replacement.

    Args:
      probs: member probabilities [M, N, K], of validation examples.
      labels: integer classes [N].

    Returns:
      All members in the order of their choice.

    Raises:
      InputError: as for `mutual_errors`.
    """
    probs = as_members(probs)
    labels = as_labels(labels, *probs.shape[1:])
    of_label = probs[:, np.arange(len(labels)), labels]
    chosen: list[int] = []
    total = np.zeros(len(labels))
    while len(chosen) < len(probs):
        rest = [m for m in range(len(probs)) if m not in chosen]
        means = (total + of_label[rest]) / (len(chosen) + 1)
        nlls = -np.log(means + EPSILON).mean(axis=1)
        chosen.append(rest[int(nlls.argmin())])
        total += of_label[chosen[-1]]
    return chosen


def nlls_in_order(
    probs: ArrayLike, labels: ArrayLike, order: Sequence[int]
) -> list[float]:
    """Computes the NLL of the mean of the first m members of an order, m = 1, ..., M.

    Args:
      probs: member probabilities [M, N, K].
      labels: integer classes [N].
      order: members, such as from `choose_by_nll`.

    Returns:
      As many numbers as `order` has members.

    Raises:
      InputError: as for `mutual_errors`.
    """
    probs = as_members(probs)
    labels = as_labels(labels, *probs.shape[1:])
    of_label = probs[list(order)][:, np.arange(len(labels)), labels]
    means = of_label.cumsum(axis=0) / np.arange(1, len(of_label) + 1)[:, None]
    return [float(nll) for nll in -np.log(means + EPSILON).mean(axis=1)]
