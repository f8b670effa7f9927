"""Sweeps of the digits' configuration, and the rows of their results."""

from configs import digits
from edp.experiment import sweep


def plan(*grid, seeds="0:2", config=None):
    """Returns the points of this grid and these seeds."""
    config = digits.get_config() if config is None else config
    return sweep.points(config.lock(), sweep.parse_seeds(seeds), sweep.parse_grid(grid))


def rows_of(result, model):
    """Returns the rows of a model, one for each setting."""
    return [row for row in result["rows"] if row["model"] == model]
