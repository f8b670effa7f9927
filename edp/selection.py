"""Which epoch's variables training keeps, where that need not be the last one's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Selection(NamedTuple):
    """How the variables of epochs are compared.

    Attributes:
      name: of the score, in the log and in the record.
      score: variables -> a float array, of which higher is better: one number; or
        [M], where each place on the variables' leading axis is chosen by itself.
    """

    name: str
    score: Callable[[Any], np.ndarray]


class Best(NamedTuple):
    """The variables of the highest score so far; of equal ones, the earliest.

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


def begin(variables: Any) -> Best:
    """What any score is better than; a copy, as training reuses memory."""
    copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(variables)
    return Best(copied, np.asarray(-np.inf), np.asarray(0))


def restore(variables: Any, record: dict[str, Any]) -> Best:
    """`Best` of its saved variables and its `record`."""
    return Best(variables, np.asarray(record["scores"]), np.asarray(record["epochs"]))


def update(best: Best, variables: Any, scores: np.ndarray, epoch: int) -> Best:
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

    return Selection("validation_accuracy", score)
