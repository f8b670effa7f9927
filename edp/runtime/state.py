"""What a training step reads and returns, for teachers and students alike."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """All that training goes on from.

    Of an ensemble every leaf but `step` has a leading member axis.
    """

    step: jax.Array  # int32, training steps done
    params: Any
    model_state: dict[str, Any]  # the other collections, such as batch_stats
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, **self.model_state}


def split_variables(variables) -> tuple[Any, dict[str, Any]]:
    """Variables -> (params, the other collections)."""
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return variables["params"], rest
