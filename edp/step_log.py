"""The metrics of training steps: read from the device, averaged, logged by epoch."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from edp import workdir

# By metric; one step's.
Row = dict[str, float]


def read(dispatches: list[dict[str, Any]]) -> list[Row]:
    """The metrics of each step, of members their mean; one transfer for all of them.

    Args:
      dispatches: by metric, of the steps of each [n] or [n, M].
    """
    return [
        {name: float(np.mean(values[i])) for name, values in metrics.items()}
        for metrics in jax.device_get(dispatches)
        for i in range(len(metrics["loss"]))
    ]


def taken(rows: list[Row]) -> list[Row]:
    """The rows of steps that were not skipped, without what says so."""
    return [
        {name: value for name, value in row.items() if name != "skipped"}
        for row in rows
        if not row.get("skipped")
    ]


def means(rows: list[Row]) -> Row:
    """Over the steps taken; and the number of the others, if there were any."""
    kept = taken(rows)
    result = {name: float(np.mean([row[name] for row in kept])) for name in kept[0]}
    skipped = len(rows) - len(kept)
    return {**result, "skipped_steps": skipped} if skipped else result


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops what was logged after `step`, from which training goes on.

    And lines that are damaged, as one cut off when the process was killed.
    """
    if not path.exists():
        return
    lines = path.read_bytes().decode(errors="replace").splitlines(True)
    workdir.write_text(path, "".join(line for line in lines if _is_by(line, step)))


def _is_by(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (KeyError, TypeError, ValueError):
        return False
