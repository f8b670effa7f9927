"""Section on corrupted test images: accuracy and calibrated NLL by severity."""

import pathlib
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import matplotlib
from markupsafe import Markup

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, STYLE, series, to_svg
from edp.report.files import read_evaluated
from edp.report.page.markup import (
    Section,
    absent,
    figure,
    heading,
    panels,
    paragraph,
    shorten,
)
from edp.report.page.table import Column, html_table
from edp.report.rows import Row, is_plain, number, series_by_student

_SEVERITIES = range(1, 6)
_PANELS = (("accuracy", "accuracy, %", 100), ("cnll", "calibrated NLL", 1))
_COLUMNS = (
    Column("model", "model", "model"),
    Column("accuracy clean", "acc % clean", "", 100, 2, 1),
    Column("accuracy", "corrupted", "", 100, 2, 1),
    Column("nll clean", "NLL clean", "", 1, 4, -1),
    Column("nll", "corrupted", "", 1, 4, -1),
    Column("cnll clean", "cNLL clean", "", 1, 4, -1),
    Column("cnll", "corrupted", "", 1, 4, -1),
    Column("ece clean", "ECE % clean", "", 100, 2, -1),
    Column("ece", "corrupted", "", 100, 2, -1),
)


class Line(NamedTuple):
    """One model's curve.

    Attributes:
      name: label; about 20 characters fit.
      points: (severity, value), ascending.
      colour: line colour.
      dashed: whether the line is dashed.
    """

    name: str
    points: Sequence[tuple[int, float]]
    colour: str
    dashed: bool


def corruptions_section(path: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws curves over severity and a table of means, from `corruptions.json`.

    There is one figure for the computed corruptions, and one for each folder of
    published ones, whose rows are named '<folder>/<corruption>'.
    """
    entries, protocol, why = read_evaluated(path)
    if why:
        return Section(absent(f"Corrupted images are left out: {why}."))
    # The part of the name before 'mean', such as 'CIFAR-10-C/'.
    named = [str(entry.get("corruption")) for entry in entries]
    found = dict.fromkeys(n.removesuffix("mean") for n in named if n.endswith("mean"))
    html, figures = Markup(), {}
    for folder in found or [""]:
        drawn, of_folder = _folder_figure(entries, folder, rows)
        html += drawn
        figures |= of_folder
    if not html:
        return Section(paragraph("No corruptions were evaluated.", "note"))
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
    colours = series_by_student(rows)
    plain = {str(row["model"]) for row in rows if is_plain(row)}
    figures = {}
    for key, title, scale in _PANELS:
        lines = []
        for name, by_severity in models.items():
            values = {s: number(entry, key) for s, entry in by_severity.items()}
            points = sorted((s, scale * v) for s, v in values.items() if v is not None)
            colour = MUTED if name == "DE-1" else INK
            colour = series(colours[name]) if name in colours else colour
            if points:
                lines.append(Line(shorten(name, 20), points, colour, name in plain))
        if lines:
            name = f"corruptions_{folder.replace('/', '_')}{key}"
            figures[name] = severity_figure(f"{folder.replace('/', ' ')}{title}", lines)
    means = [_means(name, found, name in colours) for name, found in models.items()]
    html = figure(
        "Mean over the corruptions of each severity; severity 0 is the clean images. "
        "The heavy line is the whole ensemble, the grey line a single network, and a "
        "dashed line a student distilled without a perturbation. The table compares "
        "the clean images with the mean over all corruptions and severities. Bold: the "
        "best student.",
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


@matplotlib.rc_context(STYLE)
def severity_figure(title: str, lines: Sequence[Line]) -> str:
    """Draws a quantity against the severity of corruptions.

    Args:
      title: the quantity; also the prefix of the SVG's ids on the page.
      lines: at least one.

    Returns:
      An `<svg>` element.
    """
    labels = [f"{line.points[-1][1]:.3g} {line.name}" for line in lines]
    drawing, axes = labelled_axes(labels, title, "severity", (200, 280), whole=True)
    for line in lines:
        style = (0, (4, 2.5)) if line.dashed else "-"
        axes.plot(
            *zip(*line.points, strict=True), marker="o", markersize=3.5,
            color=line.colour, linestyle=style,
            linewidth=2.2 if line.colour == INK else 1.6,
        )  # fmt: skip
    axes.set_xlim(-0.2, max(_SEVERITIES) + 0.2)
    ends = [line.points[-1][1] for line in lines]
    label_ends(axes, labels, ends, [line.colour for line in lines])
    described = (
        f"{line.name} {', '.join(f'{v:.3g} at {s}' for s, v in line.points)}"
        for line in lines
    )
    return to_svg(
        drawing, f"severity-{title}", f"{title} by severity: {'; '.join(described)}"
    )
