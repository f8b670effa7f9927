"""Section on selective prediction: error against coverage."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, STYLE, series, to_svg
from edp.report.files import read_test_predictions
from edp.report.page.markup import Section, figure, shorten, single
from edp.report.rows import (
    Row,
    is_plain,
    largest_ensemble,
    series_by_student,
    shown_students,
)

# Points drawn for one curve, and for all curves together.
_NUM_POINTS, _ALL_POINTS = 120, 1000
_FIRST = 0.02  # Least coverage drawn: below it, few inputs decide the error.


class RiskCurve(NamedTuple):
    """One risk-coverage curve.

    Attributes:
      name: label; about 20 characters fit.
      coverage: [N] fractions of the inputs, ascending to 1.
      risk: [N] error rate among the most confident inputs at each coverage.
      series: colour index; None for an ensemble.
      dashed: whether the line is dashed (a student without a perturbation).
    """

    name: str
    coverage: np.ndarray
    risk: np.ndarray
    series: int | None
    dashed: bool


def risk_section(folder: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws error against coverage of DE-1, DE-M and students."""
    colours = series_by_student(rows)
    ensemble = largest_ensemble(rows)
    curves, missing = [], []
    for row in [*ensemble, *shown_students(rows)]:
        name = str(row["model"])
        file = "teachers" if row in ensemble else name
        arrays, why = read_test_predictions(folder, file)
        if arrays is None:
            missing.append(why)
            continue
        try:
            if row in ensemble and len(arrays[0]) > 1:
                curves.append(
                    RiskCurve("DE-1", *_mean_risk_coverage(*arrays), None, True)
                )
            pooled = arrays[0].mean(axis=0, dtype=np.float64)
            curve = _risk_coverage(pooled, arrays[1])
        except (InputError, ValueError, TypeError) as error:
            missing.append(f"{pathlib.PurePath(file).name}.npz: {error}")
            continue
        shade = colours.get(name)
        curves.append(RiskCurve(shorten(name, 20), *curve, shade, is_plain(row)))
    left_out = f"risk-coverage curves: {'; '.join(missing)}" if missing else ""
    if not curves:
        return Section(left_out=left_out)
    svg = risk_coverage(curves)
    body = figure(
        f"{_summary(curves)}Error among the most confident test inputs against "
        "coverage, the fraction of inputs a predictor answers. Confidence is the "
        "largest probability. The heavy curve is the whole ensemble, the grey curve "
        "the mean over its members, and a dashed curve of a colour a student distilled "
        "without a perturbation. The area under a curve is its AURC; labels give the "
        "error on all inputs. A curve that stays low until far to the right ranks its "
        "errors last.",
        single(svg),
    )
    return Section(body, {"risk_coverage": svg}, left_out)


def _summary(curves: Sequence[RiskCurve]) -> str:
    """Says what the best ranking gains, at a coverage of 80 %."""

    def error(curve: RiskCurve) -> float:
        return 100 * float(curve.risk[np.searchsorted(curve.coverage, 0.8)])

    best = min(curves, key=error)
    return (
        f"Lowest at a coverage of 80 %: {best.name}, with an error of "
        f"{error(best):.2f} %, after {100 * best.risk[-1]:.2f} % on all inputs. "
    )


@matplotlib.rc_context(STYLE)
def risk_coverage(curves: Sequence[RiskCurve]) -> str:
    """Draws error against coverage, labelled at the right end.

    Args:
      curves: at least one; each is thinned to at most 120 points, fewer if there
        are many curves.

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
        # A spike at low coverage must not set the scale.
        highest = max(highest, *risk[coverage >= 20], risk[-1])
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.05 * highest or 1.0)
    label_ends(axes, labels, [100 * curve.risk[-1] for curve in curves], colours)
    described = [f"{c.name} {c.risk.mean():.4f}" for c in curves]
    return to_svg(
        figure,
        "risk-coverage",
        f"Error against coverage; area under the curve: {', '.join(described)}",
    )


def _risk_coverage(
    probs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns coverage and risk of probabilities [N, K]."""
    return metrics.risk_coverage(probs.max(axis=-1), probs.argmax(axis=-1) == labels)


def _mean_risk_coverage(
    probs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns coverage and the mean risk over members of [M, N, K]."""
    curves = [_risk_coverage(member, labels) for member in probs]
    return curves[0][0], np.mean([risk for _, risk in curves], axis=0)
