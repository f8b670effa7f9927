"""Parts of a `Student` from a Flax module with logits [B, K] or [S, B, K]."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from edp import losses
from edp.metrics import uncertainty as uncertainty_scores


def create_init(model) -> Callable:
    """Creates `init` of a `Student`."""
    return functools.partial(model.init, train=False)


def forward(model, variables, *inputs, key: jax.Array):
    """Runs a forward pass in training mode.

    Args:
      model: called as `model(*inputs, train=True)`.
      variables: of the model.
      *inputs: [B, ...].
      key: PRNG key of the stochastic layers.

    Returns:
      Logits [S, B, K], and the variables with updated collections.
    """
    logits, model_state = model.apply(
        variables,
        *inputs,
        train=True,
        mutable=[name for name in variables if name != "params"],
        rngs={"dropout": key},
    )
    return with_members(logits), {**variables, **model_state}


# The accuracy of every student and teacher is one function.
accuracy = losses.accuracy


def model_state(variables) -> dict:
    """Returns the collections other than `params`."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def predictors(probs: Callable) -> tuple[Callable, Callable]:
    """Returns `predict` and `uncertainty` of a `Student`, from its probabilities."""

    def uncertainty(variables, x):
        return uncertainty_scores.scores(probs(variables, x))

    return probs, uncertainty


def predictors_of_logits(model) -> tuple[Callable, Callable]:
    """Returns `predictors_from_logits` of a module."""

    def logits(variables, x):
        return with_members(model.apply(variables, x, train=False))

    return predictors_from_logits(logits)


def predictors_from_logits(logits: Callable) -> tuple[Callable, Callable]:
    """Returns `predictors`, with scores of the logits.

    Args:
      logits: (variables, x) -> [S, B, K].
    """

    def probs(variables, x):
        return jnp.exp(losses.log_probs(logits(variables, x)))

    def uncertainty(variables, x):
        return uncertainty_scores.all_scores(logits(variables, x))

    return probs, uncertainty


def with_members(logits: jax.Array) -> jax.Array:
    """Adds the member axis where it is missing: [B, K] or [S, B, K] -> [S, B, K]."""
    return logits if logits.ndim == 3 else logits[None]
