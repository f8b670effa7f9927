"""Section on corrupted test images: accuracy and calibrated NLL by severity."""

import pathlib
from collections.abc import Mapping, Sequence
from statistics import fmean

from markupsafe import Markup

from edp.report.figures.lines import Line, line_figure
from edp.report.figures.svg import INK, MUTED, series
from edp.report.files import read_evaluated
from edp.report.page.markup import (
    Section,
    figure,
    heading,
    panels,
    paragraph,
    shorten,
)
from edp.report.page.table import BOLD, MODEL, Column, html_table
from edp.report.rows import Row, is_plain, number, series_by_student, student_names

_SEVERITIES = range(1, 6)
_PANELS = (("accuracy", "accuracy, %", 100), ("cnll", "calibrated NLL", 1))
_COLUMNS = (
    MODEL,
    Column("accuracy clean", "acc % clean", "", 100, 2, 1),
    Column("accuracy", "corrupted", "", 100, 2, 1),
    Column("nll clean", "NLL clean", "", 1, 4, -1),
    Column("nll", "corrupted", "", 1, 4, -1),
    Column("cnll clean", "cNLL clean", "", 1, 4, -1),
    Column("cnll", "corrupted", "", 1, 4, -1),
    Column("ece clean", "ECE % clean", "", 100, 2, -1),
    Column("ece", "corrupted", "", 100, 2, -1),
)


def corruptions_section(path: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws curves over severity and a table of means, from `corruptions.json`.

    There is one figure for the computed corruptions, and one for each folder of
    published ones, whose rows are named '<folder>/<corruption>'.
    """
    entries, protocol, why = read_evaluated(path)
    if why:
        return Section(left_out=f"corrupted images: {why}")
    # The part of the name before 'mean', such as 'CIFAR-10-C/'.
    named = [str(entry.get("corruption")) for entry in entries]
    found = dict.fromkeys(n.removesuffix("mean") for n in named if n.endswith("mean"))
    html, figures = Markup(), {}
    for folder in found or [""]:
        drawn, of_folder = _folder_figure(entries, folder, rows)
        html += drawn
        figures |= of_folder
    if not html:
        return Section()
    return Section(html + paragraph(protocol, "note"), figures)


def _folder_figure(
    entries: Sequence[Row], folder: str, rows: Sequence[Row]
) -> tuple[Markup, dict[str, str]]:
    """Draws the curves and the table of one folder; '' for computed corruptions."""
    models: dict[str, dict[int, Row]] = {}
    for entry in entries:
        severity, corruption = number(entry, "severity"), entry.get("corruption")
        if corruption == "none":
            severity = 0
        if corruption == "none" or (
            corruption == f"{folder}mean" and severity in _SEVERITIES
        ):
            models.setdefault(str(entry.get("model")), {})[int(severity)] = entry
    if not models:
        return Markup(), {}
    colours, students = series_by_student(rows), student_names(rows)
    plain = {str(row["model"]) for row in rows if is_plain(row)}
    figures = {}
    for key, title, scale in _PANELS:
        lines = []
        for name, by_severity in models.items():
            values = {s: number(entry, key) for s, entry in by_severity.items()}
            points = sorted((s, scale * v) for s, v in values.items() if v is not None)
            colour = MUTED if name == "DE-1" else INK
            colour = series(colours[name]) if name in colours else colour
            if points and (name in colours or name not in students):
                lines.append(Line(shorten(name, 20), points, colour, name in plain))
        if lines:
            name = f"corruptions_{folder.replace('/', '_')}{key}"
            titled = f"{folder.replace('/', ' ')}{title}"
            figures[name] = line_figure(titled, "severity", lines)
    means = [_means(name, found, name in students) for name, found in models.items()]
    html = figure(
        "Mean over the corruptions of each severity; severity 0 is the clean images. "
        "The heavy line is the whole ensemble, the grey line a single network, and a "
        "dashed line a student distilled without a perturbation. The table compares "
        f"the clean images with the mean over all corruptions and severities. {BOLD}",
        panels(figures.values()),
        html_table(means, _COLUMNS),
    )
    title = f"Published images of {folder.removesuffix('/')}"
    return (heading(title) if folder else Markup()) + html, figures


def _means(name: str, by_severity: Mapping[int, Row], is_student: bool) -> Row:
    """Returns a row of the table."""
    row = {"model": name, "kind": "student" if is_student else ""}
    for key in ("accuracy", "nll", "cnll", "ece"):
        row[f"{key} clean"] = number(by_severity.get(0, {}), key)
        values = [number(by_severity.get(s, {}), key) for s in _SEVERITIES]
        row[key] = None if None in values else fmean(values)
    return row
