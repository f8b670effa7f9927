"""Which epoch's variables training keeps, where that need not be the last one's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Selection(NamedTuple):
    """Which variables are kept.

    Attributes:
      begin: the initial variables -> `Best`.
      update: (`Best`, the variables after an epoch, that epoch from 1) -> the new
        `Best`, which reuses the memory of the old one, and what the log is to tell of
        the epoch, by name.
      told: `Best` -> what the record is to tell of what was kept, by name.
    """

    begin: Callable[[Any], "Best"]
    update: Callable[["Best", Any, int], tuple["Best", dict[str, float]]]
    told: Callable[["Best"], dict[str, Any]]


class Best(NamedTuple):
    """The variables of the highest scores so far; of equal ones, the earliest.

    Attributes:
      variables: on the devices, beside those that are trained.
      scores: theirs, float64 [] or [M]; below all others where there are none yet.
      epochs: after which, from 1; as `scores`.
    """

    variables: Any
    scores: np.ndarray
    epochs: np.ndarray

    @property
    def record(self) -> dict[str, Any]:
        """The scores and epochs, as JSON holds them exactly."""
        return {"scores": self.scores.tolist(), "epochs": self.epochs.tolist()}


def restore(variables: Any, record: dict[str, Any]) -> Best:
    """`Best` of its saved variables and its `record`."""
    return Best(variables, np.asarray(record["scores"]), np.asarray(record["epochs"]))


def by_score(name: str, score: Callable[[Any], np.ndarray]) -> Selection:
    """Selection of the epoch of the highest score.

    Args:
      name: of the score, in the log and in the record.
      score: variables -> a float array, of which higher is better: one number; or
        [M], where each place on the variables' leading axis is chosen by itself.
    """

    def begin(variables):
        # A copy, as training reuses memory; any score is better than its.
        return Best(_copy(variables), np.asarray(-np.inf), np.asarray(0))

    def update(best, variables, epoch):
        scores = score(variables)
        return _better(best, variables, scores, epoch), {name: float(np.mean(scores))}

    def told(best):
        return {"selected_epoch": best.epochs.tolist(), name: best.scores.tolist()}

    return Selection(begin, update, told)


def by_accuracy(
    predict: Callable[[Any], np.ndarray], labels: np.ndarray, *, of_each: bool
) -> Selection:
    """Selection by the accuracy on held-out images.

    Args:
      predict: variables -> the members' probabilities [S, N, K] of these images.
      labels: integers [N].
      of_each: each member by its own accuracy, its variables on a leading axis; or
        all together by the mean of their accuracies.
    """

    def score(variables):
        accuracies = (predict(variables).argmax(-1) == labels).mean(axis=-1)
        return accuracies if of_each else accuracies.mean()

    return by_score("validation_accuracy", score)


def snapshots(num_members: int, num_epochs: int) -> Selection:
    """Keeps one network as it is at the end of each of M equal cycles of epochs.

    Its variables have a leading axis of 1, what is kept one of M (arXiv 1704.00109).

    Args:
      num_members: M, of which `num_epochs` is a multiple.
      num_epochs: of all cycles.
    """
    length = num_epochs // num_members

    def begin(variables):
        places = jnp.zeros(num_members, int)
        none = np.full(num_members, -np.inf), np.zeros(num_members, int)
        return Best(_copy(variables, places), *none)

    def update(best, variables, epoch):
        if epoch % length:
            return best, {}
        ends = np.arange(1, num_members + 1) * length
        scores = np.where(ends == epoch, float(epoch), -np.inf)
        return _better(best, variables, scores, epoch), {}

    return Selection(
        begin, update, lambda best: {"selected_epoch": best.epochs.tolist()}
    )


@jax.jit
def _copy(variables, places=None):
    """A copy; with `places` [M], of those on the leading axis."""
    if places is None:
        return jax.tree.map(jnp.copy, variables)
    return jax.tree.map(lambda leaf: leaf[places], variables)


def _better(best: Best, variables: Any, scores: np.ndarray, epoch: int) -> Best:
    """`best`, or `variables` where their scores are higher; reuses best's memory."""
    better = scores > best.scores
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
