"""Frozen member 0 of the teachers, as a part of a student.

Its variables are in a collection of their own, `source`, which the optimizer leaves
alone and which checkpoints and exports contain.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from edp.errors import InputError
from edp.runtime import stacking

COLLECTION = "source"
# The layer of a `Classifier` whose outputs are the pooled features [B, F].
_FEATURES = "head_dropout"


class Source(NamedTuple):
    """A network with features, as pure functions.

    Attributes:
      init: (key, x [1, ...]) -> variables, of the structure of one member's.
      features: (variables, x [B, ...]) -> penultimate features h [B, F] and logits z
        [B, K], in evaluation mode.
    """

    init: Callable[..., Any]
    features: Callable[..., tuple[jax.Array, jax.Array]]


def create_source(model, rngs: Mapping[str, jax.Array] | None = None) -> Source:
    """Creates a source from a network.

    Args:
      model: a subclass of `edp.models.Classifier`, or a module around one.
      rngs: random streams of the forward pass, such as those of a fixed dropout mask.

    Raises:
      InputError: if the model is no Linen module. `features` raises it for a module
        without a `Classifier`.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"build_model returns a {type(model).__name__}, whose features cannot be "
            "read; accepted: a subclass of edp.models.Classifier"
        )

    def features(variables, x):
        logits, captured = model.apply(
            variables,
            x,
            train=False,
            rngs=rngs,
            capture_intermediates=lambda module, _: module.name == _FEATURES,
            mutable=["intermediates"],
        )
        pooled = jax.tree.leaves(captured)
        if len(pooled) != 1:
            raise InputError(
                f"build_model returns a {type(model).__name__} with {len(pooled)} "
                f"layers named {_FEATURES!r}, of which one gives the features; "
                "accepted: a subclass of edp.models.Classifier"
            )
        return pooled[0], logits

    def init(key, x):
        variables = model.init(key, x, train=False)
        jax.eval_shape(features, variables, x)  # raises before any training
        return variables

    return Source(init, features)


def begin(variables: dict[str, Any], teacher_variables: Any) -> dict[str, Any]:
    """Puts member 0 of the teachers into a student; see `Student.begin`.

    Args:
      variables: of the student, with the collection `source`.
      teacher_variables: stacked, as of `teachers_from_variables` [M, ...].

    Raises:
      InputError: without variables (teachers from functions, PyTorch or a loader), and
        for those of another network.
    """
    accepted = (
        "accepted: stacked variables [M, ...] of the network that build_model() "
        "returns, as for edp.ensemble.teachers_from_variables"
    )
    if teacher_variables is None:
        raise InputError(
            "teacher_variables=None, but the student contains a frozen member of the "
            f"teachers; {accepted}. Teachers from functions, PyTorch or a loader have "
            "no such member"
        )
    wanted = jax.tree.map(np.shape, variables[COLLECTION])
    if jax.tree.map(lambda leaf: np.shape(leaf)[1:], teacher_variables) != wanted:
        raise InputError(
            "teacher_variables differ from the student's frozen member in structure or "
            f"shape; {accepted}"
        )
    return {**variables, COLLECTION: stacking.select(teacher_variables, 0)}
