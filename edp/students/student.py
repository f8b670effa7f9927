"""What a student is: a record of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from edp.runtime import optimizers


class DistillBatch(NamedTuple):
    """What a student learns from in one step.

    Attributes:
      image: inputs of the label term [B, ...], in [0, 1].
      label: integers [B], or distributions [B, K] where labels are mixed.
      perturbed: inputs of the distillation term [B, ...]; None where they are
        those in `image`, so that one pass serves both terms.
      teacher_logits: the members' logits [M, B, K] on the distillation inputs.
      step: the training steps done before, int32.
    """

    image: jax.Array
    label: jax.Array
    perturbed: jax.Array | None
    teacher_logits: jax.Array
    step: jax.Array


class Student(NamedTuple):
    """A kind of student, bound to a network and to the loss's settings.

    Attributes:
      num_members: S, how many predictions it makes of one input.
      inference_cost: in forward passes of one plain network.
      init: (key, x [1, ...]) -> variables.
      loss: (variables, batch, key) -> (loss [B], (model_state, metrics)), with
        the updated collections other than `params` and {name: [B]}. A loss of the
        batch as a whole stands there B times.
      finalise: variables as trained -> variables as the following take them.
      predict: (variables, x [B, ...]) -> member probabilities [S, B, K].
      uncertainty: (variables, x) -> {name: scores [B]}, higher = less certain.
      rule: how its parameters decay; see `optimizers.create_optimizer`.
      matched: (variables as trained, x [B, ...]) -> logits [M, B, K], in evaluation
        mode, of the members of which each learns from one teacher; None without.
    """

    num_members: int
    inference_cost: float
    init: Callable[..., Any]
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]]
    finalise: Callable[[Any], Any]
    predict: Callable[..., jax.Array]
    uncertainty: Callable[..., dict[str, jax.Array]]
    rule: optimizers.Rule = optimizers.decay_all
    matched: Callable[..., jax.Array] | None = None
