"""Section on training: curves over epochs, from the networks' `metrics.jsonl`."""

import json
import math
import pathlib
from collections.abc import Sequence

from edp.report.figures.lines import Line, line_figure
from edp.report.figures.svg import INK, series
from edp.report.page.markup import Section, figure, panels, shorten
from edp.report.rows import Row, is_plain, number, series_by_student, shown_students

_PANELS = (
    ("loss", "training loss", 1),
    ("accuracy", "training accuracy, %", 100),
    ("validation_accuracy", "validation accuracy, %", 100),
)
_NUM_POINTS = 60  # drawn for one curve


def training_section(workdir: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws loss and accuracy of the teachers and of each student shown."""
    colours = series_by_student(rows)
    logs = {"teachers": (read_log(workdir / "teachers"), INK, False)}
    for row in shown_students(rows):
        name = str(row["model"])
        stage = workdir / "students" / pathlib.PurePath(name).name
        logs[name] = (read_log(stage), series(colours[name]), is_plain(row))
    figures = {}
    for key, title, scale in _PANELS:
        lines = []
        for name, (log, colour, dashed) in logs.items():
            points = [
                (epoch, scale * value)
                for row in log
                if (value := number(row, key)) is not None
                and (epoch := number(row, "epoch")) is not None
            ]
            # The log of a density goes below 0 and would set the scale of all.
            if len(points) > 1 and min(value for _, value in points) >= 0:
                points = thin(points)
                lines.append(Line(shorten(name, 20), points, colour, dashed))
        if lines:
            drawn = line_figure(title, "epoch", lines, markers=False)
            figures[f"training_{key}"] = drawn
    if not figures:
        return Section()
    html = figure(
        f"{_summary(logs['teachers'][0])}Means over the steps of each epoch, measured "
        "while the weights change. The heavy line is the mean over the teachers; their "
        "loss is the cross-entropy of the labels, a student's includes its distance "
        "from the teachers, so only students of one kind compare in loss, and losses "
        "below 0, as of densities, are left out. A curve that still falls at the end "
        "asks for more epochs.",
        panels(figures.values()),
    )
    return Section(html, figures)


def _summary(log: Sequence[Row]) -> str:
    """Says how well the teachers fit the training images in the end."""
    accuracy = number(log[-1], "accuracy") if log else None
    if accuracy is None:
        return ""
    return (
        f"In their last epoch the teachers are right on {100 * accuracy:.1f} % of the "
        "training images. "
    )


def read_log(stage: pathlib.Path) -> list[Row]:
    """Reads `metrics.jsonl` of a stage, without damaged lines; [] if missing."""
    path = stage / "metrics.jsonl"
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keeps at most 60 points, evenly spaced, and the last one."""
    step = math.ceil(len(points) / _NUM_POINTS)
    return list(points[::-1][::step][::-1])
