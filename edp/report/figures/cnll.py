"""Figure of calibrated NLL against ensemble size, with students as level lines."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.lines import DASHES
from edp.report.figures.svg import INK, MUTED, PAPER, STYLE, series, to_svg

Interval = tuple[float, float]

# In pixels: width of the curve, and distance of the students' error bars.
_INNER, _SLOT = 205, 8


class Level(NamedTuple):
    """A student's horizontal line in `cnll_by_ensemble_size`.

    Attributes:
      name: label; about 20 characters fit.
      cnll: calibrated NLL.
      dee: deep-ensemble equivalent, or None.
      series: colour index; None for a thin grey line without a label.
      dashed: whether the line is dashed (a student without a perturbation).
      interval: ends of the error bar, or None.
    """

    name: str
    cnll: float
    dee: float | None
    series: int | None
    dashed: bool
    interval: Interval | None = None


@matplotlib.rc_context(STYLE)
def cnll_by_ensemble_size(
    sizes: Sequence[int],
    cnll: Sequence[float],
    students: Sequence[Level],
    intervals: Mapping[int, Interval] | None = None,
) -> str:
    """Draws calibrated NLL against ensemble size, students as horizontal lines.

    Args:
      sizes: numbers of members, ascending; empty without ensembles.
      cnll: the ensemble's calibrated NLL at each size.
      students: the students' lines, labelled at the right end. Lines without a colour
        do not widen the y axis.
      intervals: ends of the ensembles' error bars, by size.

    Returns:
      An `<svg>` element.
    """
    intervals = intervals or {}
    named = [level for level in students if level.series is not None]
    ends = list(named)
    if sizes:
        own = intervals.get(sizes[-1])
        ends.append(Level(f"DE-{sizes[-1]}", cnll[-1], None, None, False, own))
    labels = [f"{end.cnll:.4f} {end.name}" for end in ends]
    figure, axes = labelled_axes(
        labels,
        "calibrated NLL (lower is better)",
        "members in the ensemble" if sizes else "students",
        (_INNER + _SLOT * (len(named) + 2), 280),
        whole=True,
    )
    bars = [interval for end in ends if (interval := end.interval)]
    bars += intervals.values()
    heights = [
        *(end.cnll for end in ends),
        *cnll,
        *(end for bar in bars for end in bar),
    ]
    margin = 0.06 * (max(heights) - min(heights)) or 0.05 * abs(heights[0]) or 1.0
    axes.set_ylim(min(heights) - margin, max(heights) + margin)
    first, last = (sizes[0], max(sizes[-1], sizes[0] + 1)) if sizes else (0, 1)
    pixel = (last - first) / _INNER
    start = last + _SLOT * pixel
    axes.set_xlim(first - 10 * pixel, start + _SLOT * (len(named) + 0.5) * pixel)
    axes.set_xticks(_ticks(sizes))

    for level in students:
        if level.series is None:
            axes.axhline(level.cnll, color=MUTED, alpha=0.4, linewidth=0.8, zorder=1)
    for i, end in enumerate(named):
        colour = series(end.series)
        style = DASHES if end.dashed else "-"
        axes.axhline(end.cnll, color=colour, linewidth=1.6, linestyle=style)
        if end.interval:
            place = start + (i + 0.5) * _SLOT * pixel
            axes.plot([place] * 2, end.interval, color=colour, linewidth=1.6)
            axes.plot([place], [end.cnll], "o", color=colour, markersize=4.5)
        # Outside the curve's range the DEE is clipped, and no lines meet.
        if end.dee and sizes and min(cnll) <= end.cnll <= cnll[0]:
            axes.plot(
                [end.dee], [end.cnll], "o", markersize=6, zorder=4,
                markerfacecolor=PAPER, markeredgecolor=colour,
                markeredgewidth=1.6, clip_on=False,
            )  # fmt: skip
    for size, interval in intervals.items():
        axes.plot([size, size], interval, color=INK, linewidth=1.6, zorder=3)
    colours = [INK if end.series is None else series(end.series) for end in ends]
    label_ends(axes, labels, [end.cnll for end in ends], colours)
    axes.plot(sizes, cnll, "-o", color=INK, linewidth=2, markersize=5, zorder=3)

    described = [f"DE-{m} {v:.4f}" for m, v in zip(sizes, cnll, strict=True)]
    described += [f"{level.name} {level.cnll:.4f}" for level in students]
    return to_svg(figure, "cnll", "Calibrated NLL: " + ", ".join(described))


def _ticks(sizes: Sequence[int]) -> list[int]:
    """Returns at most 8 of the sizes, evenly spaced."""
    step = -(-len(sizes) // 8)
    return list(sizes)[:: step or 1]
