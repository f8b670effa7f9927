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


def split_variables(variables) -> tuple[Any, dict[str, Any]]:
    """Splits variables into (params, the other collections)."""
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return variables["params"], rest
