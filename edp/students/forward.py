"""What students make of a Flax module with logits [B, K] or [S, B, K]."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from edp import losses
from edp.metrics import uncertainty as uncertainty_scores


def create_init(model) -> Callable:
    """`init` of a `Student`."""
    return functools.partial(model.init, train=False)


def forward(model, variables, *inputs, key: jax.Array):
    """A pass in training mode.

    Args:
      model: called as `model(*inputs, train=True)`.
      variables: of the model.
      *inputs: [B, ...].
      key: for what the model draws.

    Returns:
      Logits [S, B, K], and the variables with the collections that the pass updates.
    """
    logits, model_state = model.apply(
        variables,
        *inputs,
        train=True,
        mutable=[name for name in variables if name != "params"],
        rngs={"dropout": key},
    )
    return with_members(logits), {**variables, **model_state}


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's.

    Args:
      logits: [..., B, K].
      labels: integers [B] or distributions [B, K].

    Returns:
      Booleans [..., B]; of distributions, the probability of the predicted class.
    """
    predicted = logits.argmax(-1)
    if labels.ndim == 1:
        return predicted == labels
    return (jax.nn.one_hot(predicted, labels.shape[-1]) * labels).sum(-1)


def model_state(variables) -> dict:
    """The collections other than `params`."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def predictors(probs: Callable) -> tuple[Callable, Callable]:
    """`predict` and `uncertainty` of a `Student` of members' probabilities alone."""

    def uncertainty(variables, x):
        return uncertainty_scores.scores(probs(variables, x))

    return probs, uncertainty


def predictors_of_logits(model) -> tuple[Callable, Callable]:
    """`predictors` of the probabilities that the module's logits are."""

    def probs(variables, x):
        logits = with_members(model.apply(variables, x, train=False))
        return jnp.exp(losses.log_probs(logits))

    return predictors(probs)


def with_members(logits: jax.Array) -> jax.Array:
    """[B, K] or [S, B, K] -> [S, B, K]."""
    return logits if logits.ndim == 3 else logits[None]
