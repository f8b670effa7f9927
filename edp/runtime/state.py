"""Training state of teachers and students."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """State that training resumes from.

    In an ensemble every leaf but `step` has a leading member axis.
    """

    step: jax.Array  # int32, training steps done
    params: Any
    model_state: dict[str, Any]  # the other collections, such as batch_stats
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of `model.apply`."""
        return {"params": self.params, **self.model_state}

    @property
    def kept_variables(self) -> dict[str, Any]:
        """The variables to evaluate and keep: their moving average if there is one."""
        if isinstance(self.opt_state, Averaged):
            return self.opt_state.variables
        return self.variables


def split_variables(variables) -> tuple[Any, dict[str, Any]]:
    """Splits variables into (params, the other collections)."""
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return variables["params"], rest


class Averaged(NamedTuple):
    """Optimizer state with a moving average of the variables.

    Attributes:
      opt_state: the state of the optimizer itself.
      variables: the average, with the structure of `TrainState.variables`.
    """

    opt_state: Any
    variables: Any
