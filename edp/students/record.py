"""What a student is: a record of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class DistillBatch(NamedTuple):
    """What a student learns from in one step.

    Attributes:
      image: inputs of the label term [B, ...], in [0, 1].
      label: integers [B].
      perturbed: inputs of the distillation term [B, ...]; None where they are
        the very `image`, so that one pass serves both terms.
      teacher_logits: the members' logits [M, B, K] on the distillation inputs.
    """

    image: jax.Array
    label: jax.Array
    perturbed: jax.Array | None
    teacher_logits: jax.Array


class Student(NamedTuple):
    """A kind of student, bound to a network and to the loss's settings.

    Attributes:
      num_members: S, how many predictions it makes of one input.
      inference_cost: in forward passes of one plain network.
      init: (key, x [1, ...]) -> variables.
      loss: (variables, batch, key) -> (loss [B], (model_state, metrics)), with
        the updated collections other than `params` and {name: [B]}.
      predict: (variables, x [B, ...]) -> member probabilities [S, B, K].
      finalise: variables as trained -> variables as `predict` takes them.
      uncertainty: (variables, x) -> {name: scores [B]}, higher = less certain.
      rank_one: params -> bools, True on rank-one factors; None without any.
    """

    num_members: int
    inference_cost: float
    init: Callable[..., Any]
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]]
    predict: Callable[..., jax.Array]
    finalise: Callable[[Any], Any]
    uncertainty: Callable[..., dict[str, jax.Array]]
    rank_one: Callable[[Any], Any] | None = None
