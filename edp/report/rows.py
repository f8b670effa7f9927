"""What the report asks of the rows of `results.json`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

CLEAN_INPUTS = {"train": "training inputs", "test": "test inputs"}
"""What the analysis looks at that is not perturbed."""


def number(row: Row, key: str) -> float | None:
    """A finite number, or None."""
    value = row.get(key)
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def middle(row: Row, key: str) -> float | None:
    """The same; of several seeds the mean."""
    value = row.get(key)
    return number(value, "mean") if isinstance(value, Mapping) else number(row, key)


def of_ensembles(rows: Sequence[Row]) -> list[Row]:
    """The rows of DE-1, ..., DE-M."""
    return [row for row in rows if row.get("kind") == "ensemble"]


def largest_ensemble(rows: Sequence[Row]) -> list[Row]:
    """The row of DE-M, or nothing where there is no row of an ensemble."""
    sized = [row for row in of_ensembles(rows) if row.get("num_members")]
    return [max(sized, key=lambda row: row["num_members"])] if sized else []


def is_plain(row: Row) -> bool:
    """Whether it is a student distilled on the inputs as they are."""
    plain = row.get("perturbation") in (None, "", "none")
    return plain and row.get("kind") == "student"


def series_by_student(rows: Sequence[Row]) -> dict[str, int]:
    """A series colour for each student, by its place."""
    students = [str(row["model"]) for row in rows if row.get("kind") == "student"]
    return {name: i for i, name in enumerate(dict.fromkeys(students))}


def inputs_name(row: Row) -> str:
    """What the inputs of a row of the analysis are, in a few words."""
    inputs = str(row["inputs"])
    name, _, _ = inputs.partition("@")
    step = row.get("step_size")
    if inputs in CLEAN_INPUTS:
        return CLEAN_INPUTS[inputs]
    step = "" if step is None else f", {255 * step:.3g}/255"
    return f"{row.get('perturbation') or 'none'}{step} ({name})"
