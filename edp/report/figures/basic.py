"""Figures on calibrated NLL, reliability and diversity, as `<svg>` elements."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, PAPER, STYLE, new_figure, series, to_svg


class Level(NamedTuple):
    """A student's horizontal line in `cnll_by_ensemble_size`.

    Attributes:
      name: label; about 20 characters fit.
      cnll: calibrated NLL.
      dee: deep-ensemble equivalent, or None.
      series: colour index.
      dashed: whether the line is dashed (a student without a perturbation).
    """

    name: str
    cnll: float
    dee: float | None
    series: int
    dashed: bool


class ReliabilityCurve(NamedTuple):
    """One reliability curve: arrays over the non-empty bins.

    Attributes:
      confidence: [bins] mean confidence in each bin.
      accuracy: [bins] accuracy in each bin.
      share: [bins] fraction of all inputs in each bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


class Bar(NamedTuple):
    """One bar of `bars`.

    Attributes:
      name: label above the bar; about 46 characters fit.
      value: length.
      series: colour index; None for the neutral colour.
    """

    name: str
    value: float
    series: int | None


@matplotlib.rc_context(STYLE)
def cnll_by_ensemble_size(
    sizes: Sequence[int], cnll: Sequence[float], students: Sequence[Level]
) -> str:
    """Draws calibrated NLL against ensemble size, students as horizontal lines.

    Args:
      sizes: numbers of members, ascending, at least one.
      cnll: the ensemble's calibrated NLL at each size.
      students: the students' lines, labelled at the right end.

    Returns:
      An `<svg>` element.
    """
    ends = [*students, Level(f"DE-{sizes[-1]}", cnll[-1], None, -1, False)]
    labels = [f"{end.cnll:.4f} {end.name}" for end in ends]
    figure, axes = labelled_axes(
        labels,
        "calibrated NLL (lower is better)",
        "members in the ensemble",
        (230, 280),
        whole=True,
    )
    heights = [level.cnll for level in students] + list(cnll)
    margin = 0.06 * (max(heights) - min(heights)) or 0.05 * abs(heights[0]) or 1.0
    low, high = min(heights) - margin, max(heights) + margin
    axes.set_ylim(low, high)
    first, last = sizes[0], max(sizes[-1], sizes[0] + 1)
    pad = 0.06 * (last - first)
    axes.set_xlim(first - pad, last + pad)

    colours = [series(end.series) if end.series >= 0 else INK for end in ends]
    for end, colour in zip(students, colours, strict=False):
        style = (0, (4, 2.5)) if end.dashed else "-"
        axes.axhline(end.cnll, color=colour, linewidth=1.6, linestyle=style)
        # Outside the curve's range the DEE is clipped, and no lines meet.
        if end.dee and min(cnll) <= end.cnll <= cnll[0]:
            axes.plot(
                [end.dee], [end.cnll], "o", markersize=6, zorder=4,
                markerfacecolor=PAPER, markeredgecolor=colour,
                markeredgewidth=1.6, clip_on=False,
            )  # fmt: skip
    label_ends(axes, labels, [end.cnll for end in ends], colours)
    axes.plot(sizes, cnll, "-o", color=INK, linewidth=2, markersize=5, zorder=3)

    described = [f"DE-{m} {v:.4f}" for m, v in zip(sizes, cnll, strict=True)]
    described += [f"{level.name} {level.cnll:.4f}" for level in students]
    return to_svg(figure, "cnll", "Calibrated NLL: " + ", ".join(described))


@matplotlib.rc_context(STYLE)
def reliability(
    curve: ReliabilityCurve,
    calibrated: ReliabilityCurve | None,
    colour: int | None,
    name: str,
) -> str:
    """Draws accuracy against confidence; a dot's area is its fraction of inputs.

    Args:
      curve: before temperature scaling.
      calibrated: after temperature scaling, drawn dashed and hollow.
      colour: colour index; None for the neutral colour.
      name: name of the model; also the prefix of the SVG's ids on the page.

    Returns:
      An `<svg>` element.
    """
    size = 210
    figure, axes = new_figure(size, size, 38, 8, 8, 36)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, dashes=(2, 2))
    ink = INK if colour is None else series(colour)
    if calibrated is not None:
        axes.plot(
            calibrated.confidence, calibrated.accuracy,
            color=MUTED, linewidth=1.2, dashes=(4, 2),
        )  # fmt: skip
        axes.scatter(
            calibrated.confidence, calibrated.accuracy, _areas(calibrated.share),
            facecolor=PAPER, edgecolor=MUTED, linewidth=1.2, zorder=3, clip_on=False,
        )  # fmt: skip
    axes.plot(curve.confidence, curve.accuracy, color=ink, linewidth=1.6, zorder=3)
    axes.scatter(
        curve.confidence, curve.accuracy, _areas(curve.share),
        color=ink, linewidth=0, zorder=4, clip_on=False,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    return to_svg(figure, f"reliability-{name}", f"Reliability diagram of {name}")


@matplotlib.rc_context(STYLE)
def bars(title: str, entries: Sequence[Bar], percent: bool = False) -> str:
    """Draws labelled horizontal bars from zero, the first one on top.

    Args:
      title: the quantity; drawn above the bars.
      entries: the bars; values are finite and not negative.
      percent: whether to write the values, fractions, in %.

    Returns:
      An `<svg>` element.
    """
    width, line, top = 330, 36, 26
    figure, axes = new_figure(width, top + line * len(entries) + 4, 2, 56, top, 4)
    axes.set_axis_off()
    axes.set(ylim=(len(entries), 0), xlim=(0, max(b.value for b in entries) or 1.0))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=8)
    described = []
    for i, bar in enumerate(entries):
        colour = MUTED if bar.series is None else series(bar.series)
        value = f"{100 * bar.value:.1f} %" if percent else f"{bar.value:.3g}"
        axes.barh(i + 0.68, bar.value, height=0.36, color=colour, linewidth=0)
        axes.plot([0, 0], [i + 0.5, i + 0.86], color=MUTED, linewidth=0.8)
        axes.text(0, i + 0.4, bar.name, va="bottom", fontsize=10.5)
        axes.annotate(
            value, (bar.value, i + 0.68), (5, 0), textcoords="offset points",
            va="center_baseline", annotation_clip=False,
        )  # fmt: skip
        described.append(f"{bar.name} {value}")
    return to_svg(figure, f"bars-{title}", f"{title}: " + ", ".join(described))


def _areas(share: np.ndarray) -> np.ndarray:
    return 6 + 160 * np.asarray(share)
