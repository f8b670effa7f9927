"""Accessors for rows of `results.json`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

CLEAN_INPUTS = {"train": "training inputs", "test": "test inputs"}
"""Names of the unperturbed inputs in the analysis."""


NUM_SERIES = 8
"""How many students have a colour of their own."""

NO_GAP = "no gap"
"""Value of `gap_closed` where DE-M is not clearly better than DE-1."""


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
    """Returns whether a row is a student distilled on unperturbed inputs.

    A row without the field, as of predictions made elsewhere, is of unknown training.
    """
    plain = "perturbation" in row and row["perturbation"] in (None, "", "none")
    return plain and row.get("kind") == "student"


def student_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of students."""
    return [row for row in rows if row.get("kind") == "student"]


def student_names(rows: Sequence[Row]) -> set[str]:
    """Returns the names of the students."""
    return {str(row["model"]) for row in student_rows(rows)}


def best_student(rows: Sequence[Row]) -> Row | None:
    """Returns the student with the lowest cNLL on the validation images.

    The lowest one on the test images if not every student's validation cNLL is known;
    None if no student has a calibrated NLL.
    """
    students = [
        row for row in student_rows(rows) if central_value(row, "cnll") is not None
    ]
    return min(students, key=_selection(students), default=None)


def is_selected_on_validation(rows: Sequence[Row]) -> bool:
    """Returns whether `best_student` knows every student's validation cNLL."""
    return all(
        central_value(row, "validation_cnll") is not None
        for row in student_rows(rows)
        if central_value(row, "cnll") is not None
    )


def _selection(students: Sequence[Row]) -> Callable[[Row], float]:
    """Returns the value by which students are ranked; infinite for none."""
    key = "validation_cnll" if is_selected_on_validation(students) else "cnll"

    def value(row: Row) -> float:
        found = central_value(row, key)
        return math.inf if found is None else found

    return value


def series_by_student(rows: Sequence[Row]) -> dict[str, int]:
    """Returns the colours of the students that figures show, in row order.

    A student has the same colour in all figures. There are `NUM_SERIES` colours: with
    more students, they go to the best by validation cNLL (`best_student`) and to the
    best of those distilled without a perturbation; other students are grey.
    """
    by_name = {str(row["model"]): row for row in student_rows(rows)}
    value = _selection(list(by_name.values()))
    ranked = sorted(by_name, key=lambda name: value(by_name[name]))
    plain = [name for name in ranked if is_plain(by_name[name])][:1]
    others = [name for name in ranked if name not in plain]
    chosen = {*plain, *others[: NUM_SERIES - len(plain)]}
    return {name: i for i, name in enumerate(n for n in by_name if n in chosen)}


def shown_students(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of `series_by_student`."""
    shown = series_by_student(rows)
    return [row for row in student_rows(rows) if str(row["model"]) in shown]


def inputs_name(row: Row) -> str:
    """Returns a short name for the inputs of a row of the analysis."""
    inputs = str(row["inputs"])
    name, _, _ = inputs.partition("@")
    step = row.get("step_size")
    if inputs in CLEAN_INPUTS:
        return CLEAN_INPUTS[inputs]
    step = "" if step is None else f", {255 * step:.3g}/255"
    return f"{row.get('perturbation') or 'none'}{step} ({name})"
