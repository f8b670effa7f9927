"""Axes for lines that are labelled at their right end."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from edp.report.figures.svg import MUTED, new_figure

# Height of a label at the end of a line, and its distance from it, in pixels.
_LINE, _LEAD = 16, 26


def labelled_axes(
    labels: Sequence[str],
    title: str,
    xlabel: str,
    least: tuple[float, float],
    *,
    whole: bool = False,
) -> tuple[Figure, Axes]:
    """Returns a figure for lines that `label_ends` labels at the right.

    Args:
      labels: labels to reserve space for.
      title: quantity on the y axis; drawn above it.
      xlabel: label of the x axis.
      least: width of the axes and least height of the figure, in pixels.
      whole: whether x ticks are whole numbers only.
    """
    inner, height = least
    left, right, top, bottom = 48, _LEAD + 6.8 * max(map(len, labels)), 26, 42
    height = max(height, top + bottom + _LINE * (len(labels) + 1))
    figure, axes = new_figure(left + inner + right, height, left, right, top, bottom)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if whole else 6, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel(xlabel)
    axes.set_title(title, x=-left / inner, pad=10, loc="left", fontsize=11, color=MUTED)
    return figure, axes


def label_ends(
    axes: Axes, labels: Sequence[str], values: Sequence[float], colours: Sequence[str]
) -> None:
    """Labels lines at the right end, spread apart where labels would overlap.

    Args:
      axes: axes with limits set; thin leaders join the labels to the lines.
      labels: texts.
      values: y at the end of each line.
      colours: colours of labels and leaders.
    """
    low, high = axes.get_ylim()
    inner, pixel = axes.bbox.width, (high - low) / axes.bbox.height
    half = _LINE / 2 * pixel
    places = spread(values, 2 * half, low + half, high - half)
    beside = axes.get_yaxis_transform()
    for label, value, place, colour in zip(
        labels, values, places, colours, strict=True
    ):
        axes.plot(
            [1, 1 + (_LEAD - 4) / inner], [value, place],
            color=colour, linewidth=0.8, transform=beside, clip_on=False,
        )  # fmt: skip
        axes.text(
            1 + _LEAD / inner, place, label,
            color=colour, transform=beside, va="center_baseline",
        )  # fmt: skip


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Spreads values to a distance of at least `gap`, with least squared change.

    The least-squares positions are an isotonic regression of the values minus the
    gaps below them.

    Args:
      values: preferred positions, in any order.
      gap: least distance between neighbours.
      low: lowest position.
      high: highest position; exceeded if not all of them fit.

    Returns:
      The positions, in the order of `values`.
    """
    order = np.argsort(values, kind="stable")
    below = gap * np.arange(len(order))
    positions = isotonic_regression(np.asarray(values, float)[order] - below).x
    positions = np.clip(positions, low, max(low, high - gap * (len(order) - 1))) + below
    places = np.empty(len(order))
    places[order] = positions
    return places.tolist()
