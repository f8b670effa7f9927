"""Sections on calibrated NLL by ensemble size and on reliability."""

import pathlib
from collections.abc import Sequence

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.report.evidence import Evidence, intervals_about
from edp.report.figures import basic, cnll
from edp.report.files import read_test_predictions
from edp.report.page.markup import Section, figure, render, shorten, single
from edp.report.rows import (
    Row,
    best_student,
    ensemble_rows,
    is_plain,
    largest_ensemble,
    number,
    series_by_student,
    shown_students,
    student_rows,
)

# A reliability bin with fewer inputs, or a smaller fraction of them, is faded.
_FEW, _SMALL = 10, 0.01


def cnll_section(rows: Sequence[Row], evidence: Evidence) -> Section:
    """Draws calibrated NLL by ensemble size, with students as level lines."""
    rows = [row for row in rows if number(row, "cnll") is not None]
    sizes = {
        int(row["num_members"]): row
        for row in ensemble_rows(rows)
        if row.get("num_members")
    }
    students = student_rows(rows)
    if not sizes and not students:
        return Section()
    colours, reference = series_by_student(rows), _reference(rows)
    bars = intervals_about(evidence.scored, reference)
    levels = [
        cnll.Level(
            name=shorten(str(row["model"]), 19),
            cnll=row["cnll"],
            dee=number(row, "dee"),
            series=colours.get(str(row["model"])),
            dashed=is_plain(row),
            interval=bars.get(str(row["model"])),
        )
        for row in students
    ]
    members = sorted(sizes)
    svg = cnll.cnll_by_ensemble_size(
        members,
        [sizes[m]["cnll"] for m in members],
        levels,
        {m: bars[name] for m in members if (name := sizes[m]["model"]) in bars},
    )
    caption = _caption([sizes[m] for m in members], students, reference if bars else "")
    return Section(figure(caption, single(svg)), {"cnll": svg})


def _reference(rows: Sequence[Row]) -> str:
    """Returns the name of the model that error bars compare the others with."""
    row = best_student(rows) or next(iter(largest_ensemble(rows)), {})
    return str(row.get("model"))


def _caption(ensembles: Sequence[Row], students: Sequence[Row], reference: str) -> str:
    """Says what the figure shows, then how to read it."""
    parts = []
    if len(ensembles) > 1:
        first, last = ensembles[0], ensembles[-1]
        parts.append(
            f"From one network to the ensemble of {last['num_members']}, the "
            f"calibrated NLL goes from {first['cnll']:.4f} to {last['cnll']:.4f} "
            "(heavy curve)."
        )
        if students:
            below = sum(row["cnll"] < last["cnll"] for row in students)
            above = sum(row["cnll"] > first["cnll"] for row in students)
            parts.append(
                f"Of {len(students)} student{'s' * (len(students) > 1)} (level lines), "
                f"{below} {'is' if below == 1 else 'are'} below the whole ensemble and "
                f"{above} above one network."
            )
    elif students:
        parts.append("Level lines are students.")
    if any(map(is_plain, students)):
        parts.append("Dashed: distilled without a perturbation.")
    hidden = len(students) - len(series_by_student(students))
    if hidden:
        parts.append(f"Thin grey: the {hidden} other students, in the table below.")
    if ensembles and any(number(row, "dee") for row in students):
        parts.append(
            "A ring on the curve is the student's deep-ensemble equivalent (DEE)."
        )
    if reference:
        parts.append(
            f"Bars: 95 % intervals of the difference from {reference}, over the test "
            f"images. A bar that does not reach the level of {reference} is a clear "
            "difference."
        )
    return " ".join(parts)


def reliability_section(folder: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws a reliability diagram of DE-M and of each student shown."""
    colours = series_by_student(rows)
    panels, missing, drawn = [], [], {}
    for row in [*largest_ensemble(rows), *shown_students(rows)]:
        name = str(row["model"])
        file = name if row.get("kind") == "student" else "teachers"
        arrays, why = read_test_predictions(folder, file)
        if arrays is None:
            missing.append(why)
            continue
        try:
            svg = _reliability_svg(row, *arrays, colours.get(name))
        except (InputError, ValueError) as error:  # Such as after a run that diverged.
            missing.append(f"{pathlib.PurePath(file).name}.npz: {error}")
            continue
        panels.append((name, _calibration_errors(row), svg))
        drawn[f"reliability_{name}"] = svg
    left_out = f"reliability diagrams: {'; '.join(missing)}" if missing else ""
    if not panels:
        return Section(left_out=left_out)
    body = figure(
        f"{_confidence_summary(rows)}Each dot is a bin of test inputs of similar "
        "confidence, its area their fraction; bins with few inputs are faded. Dots "
        "below the diagonal are overconfident, above it underconfident. Grey and "
        "dashed: after temperature scaling; the remaining distance from the diagonal "
        "cannot be corrected by a single temperature.",
        render("reliability.html", panels=panels),
    )
    return Section(body, drawn, left_out)


def _confidence_summary(rows: Sequence[Row]) -> str:
    """Says how many models are over- and underconfident, by their temperatures."""
    rows = [*largest_ensemble(rows), *student_rows(rows)]
    found = [t for row in rows if (t := number(row, "temperature")) is not None]
    if not found:
        return ""
    over = sum(t > 1 for t in found)
    return (
        f"By the fitted temperatures, {over} of {len(found)} models "
        f"{'is' if over == 1 else 'are'} overconfident (above 1) and "
        f"{len(found) - over} underconfident. "
    )


def _reliability_svg(
    row: Row, probs: np.ndarray, labels: np.ndarray, colour: int | None
) -> str:
    def curve(p):
        bins = metrics.reliability_bins(p, labels, num_bins=15)
        full = bins.counts > 0
        counts = bins.counts[full]
        share = counts / counts.sum()
        return basic.ReliabilityCurve(
            confidence=bins.confidence[full],
            accuracy=bins.accuracy[full],
            share=share,
            is_large=(counts >= _FEW) & (share >= _SMALL),
        )

    probs = probs.mean(axis=0)
    name, temperature = str(row["model"]), number(row, "temperature")
    calibrated = None
    if temperature is not None:
        calibrated = curve(metrics.apply_temperature(probs, temperature))
    return basic.reliability(curve(probs), calibrated, colour, name)


def _calibration_errors(row: Row) -> str:
    errors = [
        f"{label}\N{NO-BREAK SPACE}{100 * value:.2f}\N{NO-BREAK SPACE}%"
        for label, key in (("ECE", "ece"), ("calibrated", "cece"))
        if (value := number(row, key)) is not None
    ]
    return ", ".join(errors)
