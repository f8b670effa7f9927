"""Best-epoch selection: the variables kept need not be those of the last epoch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Selection(NamedTuple):
    """Selection of the variables to keep.

    Attributes:
      begin: the initial variables -> `Best`.
      update: (`Best`, the variables after an epoch, that epoch from 1) -> the new
        `Best`, which reuses the memory of the old one, and values for the epoch's row
        of the log.
      summary: `Best` -> values for the record of the training.
    """

    begin: Callable[[Any], "Best"]
    update: Callable[["Best", Any, int], tuple["Best", dict[str, float]]]
    summary: Callable[["Best"], dict[str, Any]]


class Best(NamedTuple):
    """Variables with the highest score so far; the earliest of equal scores.

    Attributes:
      variables: on the devices, beside the trained ones.
      scores: their scores, float64 [] or [M]; -inf before the first epoch.
      epochs: their epochs, from 1, of the shape of `scores`; 0 before the first.
    """

    variables: Any
    scores: np.ndarray
    epochs: np.ndarray

    @property
    def record(self) -> dict[str, Any]:
        """The scores and epochs as JSON values, exactly."""
        return {"scores": self.scores.tolist(), "epochs": self.epochs.tolist()}


def restore(variables: Any, record: dict[str, Any]) -> Best:
    """Returns `Best` from its saved variables and its `record`."""
    return Best(variables, np.asarray(record["scores"]), np.asarray(record["epochs"]))


def by_score(name: str, score: Callable[[Any], np.ndarray]) -> Selection:
    """Selects the epoch with the highest score.

    Args:
      name: name of the score in the log and in the record.
      score: variables -> a float array, higher is better: one number; or [M], to
        select each member on the variables' leading axis by its own score.
    """

    def begin(variables):
        # A copy, as training donates its buffers.
        return Best(_copy(variables), np.asarray(-np.inf), np.asarray(0))

    def update(best, variables, epoch):
        scores = score(variables)
        # The first epoch has no predecessor, so it is kept at a score of -inf too.
        better = (scores > best.scores) | (best.epochs == 0)
        row = {name: float(np.mean(scores))}
        return _better(best, variables, scores, epoch, better), row

    def summary(best):
        return {"selected_epoch": best.epochs.tolist(), name: best.scores.tolist()}

    return Selection(begin, update, summary)


def by_accuracy(
    predict: Callable[[Any], np.ndarray], labels: np.ndarray, *, of_each: bool
) -> Selection:
    """Selects by the accuracy on held-out images.

    Args:
      predict: variables -> the members' probabilities [S, N, K] of these images.
      labels: integers [N].
      of_each: whether to select each member on the variables' leading axis by its own
        accuracy; if not, all members by their mean accuracy.
    """

    def score(variables):
        accuracies = (predict(variables).argmax(-1) == labels).mean(axis=-1)
        return accuracies if of_each else accuracies.mean()

    return by_score("validation_accuracy", score)


def at(epochs: Sequence[int]) -> Selection:
    """Keeps a network's variables after each of M given epochs.

    The network's variables have a leading axis of 1, those kept one of M.

    Args:
      epochs: M distinct epochs, from 1.
    """
    num_members = len(epochs)

    def begin(variables):
        places = jnp.zeros(num_members, int)
        none = np.full(num_members, -np.inf), np.zeros(num_members, int)
        return Best(_copy(variables, places), *none)

    def update(best, variables, epoch):
        if epoch not in epochs:
            return best, {}
        own = np.asarray(epochs) == epoch
        scores = np.where(own, float(epoch), -np.inf)
        return _better(best, variables, scores, epoch, own), {}

    return Selection(
        begin, update, lambda best: {"selected_epoch": best.epochs.tolist()}
    )


@jax.jit
def _copy(variables, places=None):
    """Copies variables; with `places` [M], those places on the leading axis."""
    if places is None:
        return jax.tree.map(jnp.copy, variables)
    return jax.tree.map(lambda leaf: leaf[places], variables)


def _better(
    best: Best, variables: Any, scores: np.ndarray, epoch: int, better: np.ndarray
) -> Best:
    """Replaces `best` where `better` is true; donates its buffers."""
    if not better.any():
        return best
    return Best(
        _replace(best.variables, variables, better),
        np.where(better, scores, best.scores),
        np.where(better, epoch, best.epochs),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _replace(old, new, better):
    def leaf(old, new):
        along = better.reshape(better.shape + (1,) * (new.ndim - better.ndim))
        return jnp.where(along, new, old)

    return jax.tree.map(leaf, old, new)
