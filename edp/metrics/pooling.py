"""Ways to pool the members of an ensemble before one temperature is fitted.

The usual protocol averages probabilities and then fits a temperature. Averaging logits,
or tempering each member first, gives a lower NLL where members are overconfident; which
of them does so is chosen on the validation split.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from edp.errors import InputError
from edp.metrics.calibration import apply_temperature, fit_temperature
from edp.metrics.scores import EPSILON, nll

# Pools probabilities of members [M, N, K] to [N, K].
_Pool = Callable[[np.ndarray], np.ndarray]


class FittedPool(NamedTuple):
    """A way to pool members and to calibrate the result.

    Attributes:
      name: a name in `POOLS`.
      validation_nll: the NLL of the calibrated pool on the split it was fitted on.
      calibrate: probabilities of the members [M, N, K] -> calibrated [N, K].
    """

    name: str
    validation_nll: float
    calibrate: _Pool


def arithmetic_mean(probs: ArrayLike) -> np.ndarray:
    """Computes the mean of the members' probabilities [M, N, K] -> [N, K]."""
    probs = _as_members(probs)
    return probs.mean(axis=0)


def _as_members(probs: ArrayLike) -> np.ndarray:
    """Returns `probs` as float64 [M, N, K], or raises InputError."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 3:
        raise InputError(f"probs has shape {probs.shape}; accepted: [M, N, K]")
    return probs


def geometric_mean(probs: ArrayLike) -> np.ndarray:
    """Computes the softmax of the members' mean logits [M, N, K] -> [N, K].

    That is exp(mean_m log(p_m + 1e-12)), normalised.
    """
    probs = _as_members(probs)
    logs = np.log(probs + EPSILON).mean(axis=0)
    pooled = np.exp(logs - logs.max(axis=1, keepdims=True))
    return pooled / pooled.sum(axis=1, keepdims=True)


def member_temperatures(probs: ArrayLike, labels: ArrayLike) -> list[float]:
    """Fits a temperature to each member alone.

    Args:
      probs: the members' probabilities [M, N, K] on the validation split.
      labels: integer classes [N].

    Returns:
      M temperatures; see `fit_temperature`.
    """
    members = _as_members(probs)
    return [fit_temperature(member, labels).temperature for member in members]


def _tempered(probs: np.ndarray, labels: np.ndarray) -> _Pool:
    temperatures = member_temperatures(probs, labels)

    def pool(probs):
        members = zip(probs, temperatures, strict=True)
        return arithmetic_mean([apply_temperature(p, t) for p, t in members])

    return pool


POOLS: dict[str, Callable[[np.ndarray, np.ndarray], _Pool]] = {
    "arithmetic": lambda probs, labels: arithmetic_mean,
    "geometric": lambda probs, labels: geometric_mean,
    # Each member at its own temperature, then the mean of the probabilities.
    "tempered": _tempered,
}


def fit_pool(name: str, probs: ArrayLike, labels: ArrayLike) -> FittedPool:
    """Fits a pool's temperatures: of the members where it has them, then of the pool.

    Args:
      name: a name in `POOLS`.
      probs: the members' probabilities [M, N, K] on the validation split.
      labels: integer classes [N].
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    pool = POOLS[name](probs, labels)
    pooled = pool(probs)
    temperature = fit_temperature(pooled, labels).temperature
    return FittedPool(
        name,
        nll(apply_temperature(pooled, temperature), labels),
        lambda probs: apply_temperature(pool(probs), temperature),
    )


def best_pool(probs: ArrayLike, labels: ArrayLike) -> FittedPool:
    """Fits every pool and returns that with the lowest NLL on the validation split.

    Args:
      probs: the members' probabilities [M, N, K] on the validation split.
      labels: integer classes [N].

    Returns:
      The first of equal ones, in the order of `POOLS`.
    """
    fitted = [fit_pool(name, probs, labels) for name in POOLS]
    return min(fitted, key=lambda pool: pool.validation_nll)
