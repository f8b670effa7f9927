"""The sections of the page, each from the files it needs."""

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
    is_plain,
    largest_ensemble,
    number,
    of_ensembles,
    series_by_student,
)


def cnll_section(rows: Sequence[Row]) -> Section:
    """Calibrated NLL by ensemble size, with the students in it."""
    sizes = {
        int(row["num_members"]): row["cnll"]
        for row in of_ensembles(rows)
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
        "The heavy curve is the ensemble with one member, two, and so on; each student "
        "is a level line, dashed if it was distilled on the inputs as they are. A "
        "student is worth as many members as the curve has where its line meets it "
        "(the ring). Look for solid lines below dashed ones of the same kind of "
        "student: there the perturbation helped.",
        single(svg),
    )
    return Section(body, {"cnll": svg})


def reliability_section(folder: pathlib.Path, rows: Sequence[Row]) -> Section:
    """A reliability diagram of DE-M and of each student, from `predictions/`."""
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
        except InputError as error:  # As after a run that diverged.
            missing.append(f"{pathlib.PurePath(file).name}.npz: {error}")
            continue
        panels.append((name, _calibration_errors(row), svg))
        drawn[f"reliability_{name}"] = svg
    note = Markup()
    if missing:
        note = absent(f"Reliability diagrams left out: {'; '.join(missing)}.")
    if not panels:
        return Section(
            note or absent("There is no model to draw a reliability diagram of.")
        )
    body = figure(
        "Of the inputs predicted with a given confidence, how many are right; a dot's "
        "area is the share of inputs in its bin. Dots under the diagonal are "
        "overconfident. Grey and dashed is the same after temperature scaling: what "
        "is then still off the diagonal, no single temperature mends.",
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
        f"{said}\N{NO-BREAK SPACE}{100 * value:.2f}\N{NO-BREAK SPACE}%"
        for said, key in (("ECE", "ece"), ("calibrated", "cece"))
        if (value := number(row, key)) is not None
    ]
    return ", ".join(errors)
