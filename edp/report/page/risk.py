"""Does a predictor know which inputs it gets wrong? Error against coverage."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup

from edp import metrics
from edp.errors import InputError
from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, STYLE, series, to_svg
from edp.report.files import read_test_predictions
from edp.report.page.markup import Section, absent, figure, shorten, single
from edp.report.rows import Row, is_plain, largest_ensemble, series_by_student

# Points of a curve as drawn, and of all of them together.
_NUM_POINTS, _ALL_POINTS = 120, 1000
_FIRST = 0.02  # Coverage where it begins: before, it hangs on a handful of inputs.


class RiskCurve(NamedTuple):
    """One risk-coverage curve.

    Attributes:
      name: about 20 characters have room.
      coverage: [N] shares of the inputs, ascending to 1.
      risk: [N] the error rate among the most confident inputs of each share.
      series: index of its colour; None is an ensemble.
      dashed: whether to dash it (a student distilled without moving the inputs).
    """

    name: str
    coverage: np.ndarray
    risk: np.ndarray
    series: int | None
    dashed: bool


def risk_section(folder: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Error against coverage of DE-1, DE-M and the students, from `predictions/`."""
    colours = series_by_student(rows)
    ensemble = largest_ensemble(rows)
    curves, missing = [], []
    for row in [*ensemble, *(row for row in rows if row.get("kind") == "student")]:
        name = str(row["model"])
        file = "teachers" if row in ensemble else name
        arrays, why = read_test_predictions(folder, file)
        if arrays is None:
            missing.append(why)
            continue
        try:
            if row in ensemble and len(arrays[0]) > 1:
                curves.append(RiskCurve("DE-1", *_of_one(*arrays), None, True))
            pooled = arrays[0].mean(axis=0, dtype=np.float64)
            curve = _risk_coverage(pooled, arrays[1])
        except (InputError, ValueError, TypeError) as error:
            missing.append(f"{pathlib.PurePath(file).name}.npz: {error}")
            continue
        shade = colours.get(name)
        curves.append(RiskCurve(shorten(name, 20), *curve, shade, is_plain(row)))
    note = Markup()
    if missing:
        note = absent(f"Risk-coverage curves left out: {'; '.join(missing)}.")
    if not curves:
        return Section(note or absent("There is no model to draw a curve of."))
    svg = risk_coverage(curves)
    body = figure(
        "Of the test inputs a predictor is surest of, how many it gets wrong, against "
        "the share of inputs it answers; the rest would be left to somebody else. Its "
        "confidence is the largest probability. The heavy curve is the whole ensemble, "
        "the grey one the mean over its members; dashed are students distilled on the "
        "inputs as they are. The area under a curve is its AURC; labels have the error "
        "on all inputs. Look for curves that stay low until far to the right: these "
        "know which of their answers are wrong.",
        single(svg),
        note,
    )
    return Section(body, {"risk_coverage": svg})


@matplotlib.rc_context(STYLE)
def risk_coverage(curves: Sequence[RiskCurve]) -> str:
    """Draws error against coverage, labelled at the right end.

    Args:
      curves: at least one; each is thinned to at most 120 points, to fewer where
        there are many.

    Returns:
      An `<svg>` element.
    """
    labels = [f"{100 * curve.risk[-1]:.2f} {curve.name}" for curve in curves]
    figure, axes = labelled_axes(
        labels,
        "error among them, %",
        "coverage: the most confident inputs, %",
        (250, 320),
    )
    num_points = min(_NUM_POINTS, _ALL_POINTS // len(curves))
    highest, colours = 0.0, []
    for curve in curves:
        first = int(np.searchsorted(curve.coverage, _FIRST))
        places = np.linspace(first, len(curve.risk) - 1, max(2, num_points))
        places = np.unique(np.rint(places).astype(int))
        coverage, risk = 100 * curve.coverage[places], 100 * curve.risk[places]
        if curve.series is None:
            colour, weight = (MUTED, 1.6) if curve.dashed else (INK, 2.2)
        else:
            colour, weight = series(curve.series), 1.3
        style = (0, (4, 2.5)) if curve.dashed else "-"
        order = 3 if curve.series is None else 2
        axes.plot(
            coverage, risk, color=colour, linewidth=weight, linestyle=style,
            zorder=order,
        )  # fmt: skip
        colours.append(colour)
        # A jag where few inputs are in must not set the scale.
        highest = max(highest, *risk[coverage >= 20], risk[-1])
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.05 * highest or 1.0)
    label_ends(axes, labels, [100 * curve.risk[-1] for curve in curves], colours)
    said = [f"{c.name} {c.risk.mean():.4f}" for c in curves]
    return to_svg(
        figure,
        "risk-coverage",
        f"Error against coverage; area under the curve: {', '.join(said)}",
    )


def _risk_coverage(
    probs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk of probabilities [N, K]."""
    return metrics.risk_coverage(probs.max(axis=-1), probs.argmax(axis=-1) == labels)


def _of_one(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage, and the mean risk over the members of [M, N, K]."""
    curves = [_risk_coverage(member, labels) for member in probs]
    return curves[0][0], np.mean([risk for _, risk in curves], axis=0)
