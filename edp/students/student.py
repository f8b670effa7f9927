"""`Student`, a record of pure functions, and `DistillBatch`, the input of its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from edp.runtime import optimizers


class DistillBatch(NamedTuple):
    """The data of one distillation step.

    Attributes:
      image: inputs of the label term [B, ...], in [0, 1].
      label: integers [B], or distributions [B, K] where labels are mixed.
      perturbed: inputs of the distillation term [B, ...]; None where they equal
        `image`, so one forward pass serves both terms.
      teacher_logits: the members' logits [M, B, K] on the distillation inputs.
      step: number of completed training steps, int32.
    """

    image: jax.Array
    label: jax.Array
    perturbed: jax.Array | None
    teacher_logits: jax.Array
    step: jax.Array


class Student(NamedTuple):
    """A student, bound to a network and to the settings of its loss.

    Attributes:
      num_members: S, the number of predictions per input.
      inference_cost: in forward passes of one plain network; None where it is counted
        (`evaluation.costs`), as it depends on the sizes of inputs and networks.
      init: (key, x [1, ...]) -> variables.
      loss: (variables, batch, key) -> (loss [B], (model_state, metrics)), with the
        updated collections other than `params` and {name: [B]}. A loss of the whole
        batch is repeated B times.
      finalise: variables after training -> variables for `predict` and
        `uncertainty`.
      predict: (variables, x [B, ...]) -> member probabilities [S, B, K].
      uncertainty: (variables, x) -> {name: scores [B]}, higher = less certain.
      rule: weight decay of its parameters; see `optimizers.create_optimizer`.
      matched: (variables in training, x [B, ...]) -> logits [M, B, K] in evaluation
        mode, where each of the student's members matches one teacher; None for other
        students.
      begin: (variables from `init`, stacked variables of the teachers) -> variables,
        called once when training starts, for a student that contains a frozen network
        of the teachers (`students.source`); None for other students.
    """

    num_members: int
    inference_cost: float | None
    init: Callable[..., Any]
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]]
    finalise: Callable[[Any], Any]
    predict: Callable[..., jax.Array]
    uncertainty: Callable[..., dict[str, jax.Array]]
    rule: optimizers.Rule = optimizers.decay_all
    matched: Callable[..., jax.Array] | None = None
    begin: Callable[[Any, Any], Any] | None = None
