"""Section on further measures: calibration, selection, prediction sets, classes."""

import pathlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from edp.report.files import read_evaluated, read_of_same_run
from edp.report.page.markup import Section, figure, heading, paragraph
from edp.report.page.table import BOLD, MODEL, Column, html_table
from edp.report.rows import Row, student_names
from edp.report.seeds.number_format import DASH

MEASURES = (
    MODEL,
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


def measures_section(workdir: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Returns a table of `measures.json`, and the choice of members.

    Args:
      workdir: of the run; `analysis.json` has choices on perturbed inputs.
      rows: rows of `results.json`, which say who is a student.
    """
    entries, protocol, why = read_evaluated(workdir / "measures.json")
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
    analysis, _ = read_of_same_run(workdir / "analysis.json")
    return Section(html + _choices(entries, analysis.get("members")))


def with_values(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Returns the columns in which some row has a value."""
    return [c for c in columns if any(c.text(row) != DASH for row in rows)]


def _choices(entries: Sequence[Row], analysed: object) -> Markup:
    """Returns a table of the greedy choices of members; nothing without any.

    Args:
      entries: rows of `measures.json`.
      analysed: rows of `analysis.json`, if it has such.
    """
    found = []
    for members in (entry.get("members") for entry in entries):
        found += [
            _order(members, name, title, "validation")
            for name, title in (("nll", "NLL"), ("mutual_errors", "mutual errors"))
        ]
    for row in analysed if isinstance(analysed, list) else []:
        inputs = row.get("inputs") if isinstance(row, Mapping) else None
        found.append(_order(row, "mutual_errors", "mutual errors", inputs))
    orders = [order for order in found if order]
    if not orders:
        return Markup()
    sizes = range(1, 1 + max(len(order) for order in orders) - 3)
    columns = [
        Column("by", "chosen by", ""),
        Column("inputs", "on inputs", ""),
        Column("order", "order", ""),
        *(Column(str(m), f"NLL of {m}", "", 1, 4) for m in sizes),
    ]
    return heading("Choice of members") + figure(
        "Greedy orders of the members, counted from 0: by the NLL of the mean with "
        "those before, and by how often a member is wrong together with those before. "
        "NLL of m is that of the first m members on the test images. The inputs are "
        "those of a split, or training inputs perturbed as for a student.",
        html_table(orders, columns),
    )


def _order(of: object, name: str, title: str, inputs: object) -> Row:
    """Returns a row of the table; {} if there are not two members."""
    of = of if isinstance(of, Mapping) else {}
    order, nlls = of.get(f"by_{name}"), of.get(f"test_nll_by_{name}")
    if not isinstance(order, list) or not isinstance(nlls, list) or len(order) < 2:
        return {}
    text = " ".join(map(str, order))
    named = {"by": title, "inputs": inputs, "order": text}
    return {**named, **{str(m): v for m, v in enumerate(nlls, 1)}}
