"""Losses and gradients that are infinite or not a number: found, and left out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from edp.train_state import TrainState

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


class NonFinite(ArithmeticError):
    """The loss or the gradients became infinite or not a number."""


def all_finite(tree: Any) -> jax.Array:
    """Whether all floats of a tree of arrays are finite, a bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(x).all() for x in leaves]).all()


def skipping(step_fn: Step) -> Step:
    """The step that leaves the state as it is where it, or a metric, is not finite.

    Gradients that are not finite show in the state that they make. The step is counted
    all the same, so that it is not tried again.

    Args:
      step_fn: (state, ...) -> (state, metrics).

    Returns:
      The same with a metric more, `skipped`, 1 or 0; where it is 1 the others are 0.
    """

    def step(state: TrainState, *args):
        new, metrics = step_fn(state, *args)
        finite = all_finite((new, metrics))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
        skipped = 1 - finite.astype(jnp.float32)
        return kept._replace(step=new.step), {**metrics, "skipped": skipped}

    return step
