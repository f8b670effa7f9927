"""Section on further measures: calibration, selection, prediction sets, classes."""

import pathlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from edp.report.files import read_evaluated
from edp.report.page.markup import Section, figure, heading, paragraph
from edp.report.page.table import BOLD, Column, html_table
from edp.report.rows import Row, student_names
from edp.report.seeds.number_format import DASH

MEASURES = (
    Column("model", "model", "model"),
    Column("set_coverage", "sets cover %", "cover %", 100, 1, 0),
    Column("set_size", "set size", "size", 1, 2, 0),
    Column("adaptive_ece", "adaptive ECE %", "aECE %", 100, 2, -1),
    Column("classwise_ece", "classwise ECE %", "cwECE %", 100, 2, -1),
    Column("augrc", "AUGRC %", "AUGRC %", 100, 2, -1),
    Column("risk_at_80_coverage", "error % at 80 % coverage", "risk %", 100, 2, -1),
    Column("coverage_at_5_risk", "coverage % at 5 % error", "at 5 %", 100, 1, 1),
    Column("clear_accuracy", "acc % of clear images", "clear %", 100, 2, 1),
    Column("worst_class_accuracy", "worst class acc %", "worst %", 100, 2, 1),
    Column("worst_class_nll", "worst class NLL", "worst NLL", 1, 4, -1),
    Column("joint_nll", "joint NLL", "joint NLL", 1, 4, -1),
    Column("churn", "churn %", "churn %", 100, 2, -1),
)
"""Columns of rows of `measures.json`."""

LEGEND = (
    "Sets are conformal prediction sets, calibrated on images of their own: the "
    "coverage should be near the one that was asked for, and then smaller sets are "
    "better. Adaptive ECE has bins of equal size; classwise ECE is the mean over "
    "classes. AUGRC is the area under the generalised risk-coverage curve. Clear "
    "images are the test images without the most ambiguous tenth. The worst class is "
    "the worst in that column. Joint NLL is that of 10 labels at once. Churn is the "
    "share of predictions that differ from the ensemble's."
)

_CHOICE = (
    Column("members", "members", ""),
    Column("by_mutual_errors", "by mutual errors", ""),
    Column("test_nll_by_mutual_errors", "test NLL", "", 1, 4),
    Column("by_nll", "by NLL", ""),
    Column("test_nll_by_nll", "test NLL", "", 1, 4),
)


def measures_section(path: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Returns a table of `measures.json` and, if it has any, the choice of members.

    Args:
      path: the file.
      rows: rows of `results.json`, which say who is a student.
    """
    entries, protocol, why = read_evaluated(path)
    if why:
        return Section(left_out=f"further measures: {why}")
    students = student_names(rows)
    shown = [
        {**entry, "kind": "student" if entry.get("model") in students else ""}
        for entry in entries
        if entry.get("model")
    ]
    columns = with_values(MEASURES, shown)
    if len(columns) < 2:
        return Section()
    html = figure(f"{LEGEND} {BOLD}", html_table(shown, columns))
    html += paragraph(protocol, "note")
    for entry in entries:
        html += _choice(entry.get("members"))
    return Section(html)


def with_values(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Returns the columns in which some row has a value."""
    return [c for c in columns if any(c.text(row) != DASH for row in rows)]


def _choice(members: object) -> Markup:
    """Returns the table of the greedy choices of members; nothing for one member."""
    keys = [column.key for column in _CHOICE[1:]]
    if not isinstance(members, Mapping):
        return Markup()
    found = [members.get(key) for key in keys]
    if not all(isinstance(values, list) for values in found) or len(found[0]) < 2:
        return Markup()
    rows = [
        {"members": size, **dict(zip(keys, values, strict=True))}
        for size, values in enumerate(zip(*found, strict=False), 1)
    ]
    return heading("Choice of members") + figure(
        "Two greedy orders of the members, found on the validation images: by how "
        "often they are wrong together with those before them, and by the NLL of the "
        "mean with those before them. A row names the member added, counted from 0, "
        "and has the test NLL of all members up to it.",
        html_table(rows, _CHOICE),
    )
