"""Accessors for rows of `results.json`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

CLEAN_INPUTS = {"train": "training inputs", "test": "test inputs"}
"""Names of the unperturbed inputs in the analysis."""


def number(row: Row, key: str) -> float | None:
    """Returns a finite number, or None."""
    value = row.get(key)
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def central_value(row: Row, key: str) -> float | None:
    """Returns a number, or the mean of a quantity over seeds; else None."""
    value = row.get(key)
    return number(value, "mean") if isinstance(value, Mapping) else number(row, key)


def ensemble_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of DE-1, ..., DE-M."""
    return [row for row in rows if row.get("kind") == "ensemble"]


def largest_ensemble(rows: Sequence[Row]) -> list[Row]:
    """Returns the row of DE-M in a list; empty without ensembles."""
    sized = [row for row in ensemble_rows(rows) if row.get("num_members")]
    return [max(sized, key=lambda row: row["num_members"])] if sized else []


def is_plain(row: Row) -> bool:
    """Returns whether a row is a student distilled on unperturbed inputs."""
    plain = row.get("perturbation") in (None, "", "none")
    return plain and row.get("kind") == "student"


def series_by_student(rows: Sequence[Row]) -> dict[str, int]:
    """Returns a colour index for each student, in row order."""
    students = [str(row["model"]) for row in rows if row.get("kind") == "student"]
    return {name: i for i, name in enumerate(dict.fromkeys(students))}


def inputs_name(row: Row) -> str:
    """Returns a short name for the inputs of a row of the analysis."""
    inputs = str(row["inputs"])
    name, _, _ = inputs.partition("@")
    step = row.get("step_size")
    if inputs in CLEAN_INPUTS:
        return CLEAN_INPUTS[inputs]
    step = "" if step is None else f", {255 * step:.3g}/255"
    return f"{row.get('perturbation') or 'none'}{step} ({name})"
