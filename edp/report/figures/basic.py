"""Figures on reliability and diversity, as `<svg>` elements."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from edp.report.figures.svg import INK, MUTED, PAPER, STYLE, new_figure, series, to_svg

_FADED = 0.3  # opacity


class ReliabilityCurve(NamedTuple):
    """One reliability curve: arrays over the non-empty bins.

    Attributes:
      confidence: [bins] mean confidence in each bin.
      accuracy: [bins] accuracy in each bin.
      share: [bins] fraction of all inputs in each bin.
      is_large: [bins] whether the bin has enough inputs to judge it.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray
    is_large: np.ndarray


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
def reliability(
    curve: ReliabilityCurve,
    calibrated: ReliabilityCurve | None,
    colour: int | None,
    name: str,
) -> str:
    """Draws accuracy against confidence; a dot's area is its fraction of inputs.

    Lines join the large bins; the dots of small bins are faded.

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
        _reliability_curve(
            axes, calibrated, {"color": MUTED, "linewidth": 1.2, "dashes": (4, 2)},
            {"facecolor": PAPER, "edgecolor": MUTED, "linewidth": 1.2, "zorder": 3},
        )  # fmt: skip
    _reliability_curve(
        axes, curve, {"color": ink, "linewidth": 1.6, "zorder": 3},
        {"color": ink, "linewidth": 0, "zorder": 4},
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    return to_svg(figure, f"reliability-{name}", f"Reliability diagram of {name}")


def _reliability_curve(
    axes: Axes, curve: ReliabilityCurve, line: dict, dots: dict
) -> None:
    large = curve.is_large
    axes.plot(curve.confidence[large], curve.accuracy[large], **line)
    for which, alpha in ((large, 1.0), (~large, _FADED)):
        if which.any():
            axes.scatter(
                curve.confidence[which], curve.accuracy[which],
                6 + 160 * curve.share[which], alpha=alpha, clip_on=False, **dots,
            )  # fmt: skip


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
    places = [i + 0.68 for i in range(len(entries))]
    colours = [MUTED if bar.series is None else series(bar.series) for bar in entries]
    lengths = [bar.value for bar in entries]
    axes.barh(places, lengths, height=0.36, color=colours, linewidth=0)
    axes.vlines(
        [0] * len(places),
        [p - 0.18 for p in places],
        [p + 0.18 for p in places],
        MUTED,
        linewidth=0.8,
    )
    described = []
    for i, bar in enumerate(entries):
        value = f"{100 * bar.value:.1f} %" if percent else f"{bar.value:.3g}"
        axes.text(0, i + 0.4, bar.name, va="bottom", fontsize=10.5)
        axes.annotate(
            value, (bar.value, i + 0.68), (5, 0), textcoords="offset points",
            va="center_baseline", annotation_clip=False,
        )  # fmt: skip
        described.append(f"{bar.name} {value}")
    return to_svg(figure, f"bars-{title}", f"{title}: " + ", ".join(described))
