"""Sections on calibrated NLL by ensemble size and on reliability."""

import pathlib
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from edp import metrics
from edp.errors import InputError
from edp.report.figures import basic
from edp.report.files import read_test_predictions
from edp.report.page.markup import Section, absent, figure, render, shorten, single
from edp.report.rows import (
    Row,
    ensemble_rows,
    is_plain,
    largest_ensemble,
    number,
    series_by_student,
)


def cnll_section(rows: Sequence[Row]) -> Section:
    """Draws calibrated NLL by ensemble size, with students as level lines."""
    sizes = {
        int(row["num_members"]): row["cnll"]
        for row in ensemble_rows(rows)
        if row.get("num_members") and number(row, "cnll") is not None
    }
    if not sizes:
        return Section(
            absent("No row of an ensemble in results.json has a calibrated NLL.")
        )
    colours = series_by_student(rows)
    levels = [
        basic.Level(
            name=shorten(str(row["model"]), 20),
            cnll=row["cnll"],
            dee=number(row, "dee"),
            series=colours[str(row["model"])],
            dashed=is_plain(row),
        )
        for row in rows
        if row.get("kind") == "student" and number(row, "cnll") is not None
    ]
    members = sorted(sizes)
    svg = basic.cnll_by_ensemble_size(members, [sizes[m] for m in members], levels)
    body = figure(
        "The heavy curve is the ensemble by number of members; each student is a level "
        "line, dashed if it was distilled without a perturbation. The ring, where a "
        "line meets the curve, is the student's deep-ensemble equivalent (DEE). A "
        "solid line below a dashed one of the same kind of student means that the "
        "perturbation helped.",
        single(svg),
    )
    return Section(body, {"cnll": svg})


def reliability_section(folder: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws a reliability diagram of DE-M and of each student."""
    students = [row for row in rows if row.get("kind") == "student"]
    shown = [*largest_ensemble(rows), *students]
    colours = series_by_student(rows)
    panels, missing, drawn = [], [], {}
    for row in shown:
        name = str(row["model"])
        file = name if row.get("kind") == "student" else "teachers"
        arrays, why = read_test_predictions(folder, file)
        if arrays is None:
            missing.append(why)
            continue
        try:
            svg = _reliability_svg(row, *arrays, colours.get(name))
        except InputError as error:  # Such as after a run that diverged.
            missing.append(f"{pathlib.PurePath(file).name}.npz: {error}")
            continue
        panels.append((name, _calibration_errors(row), svg))
        drawn[f"reliability_{name}"] = svg
    note = Markup()
    if missing:
        note = absent(f"Reliability diagrams left out: {'; '.join(missing)}.")
    if not panels:
        return Section(note or absent("No model has test predictions."))
    body = figure(
        "Accuracy of the inputs predicted with a given confidence; a dot's area is the "
        "fraction of inputs in its bin. Dots below the diagonal are overconfident. "
        "Grey and dashed: after temperature scaling; the remaining distance from the "
        "diagonal cannot be corrected by a single temperature.",
        render("reliability.html", panels=panels),
        note,
    )
    return Section(body, drawn)


def _reliability_svg(
    row: Row, probs: np.ndarray, labels: np.ndarray, colour: int | None
) -> str:
    def curve(p):
        bins = metrics.reliability_bins(p, labels, num_bins=15)
        full = bins.counts > 0
        return basic.ReliabilityCurve(
            confidence=bins.confidence[full],
            accuracy=bins.accuracy[full],
            share=bins.counts[full] / bins.counts.sum(),
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
