"""Axes of lines that are labelled where they end, at the right."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from edp.report.figures.svg import MUTED, new_figure

# Of labels at the ends of lines, in pixels: their height, and how far off they are.
_LINE, _LEAD = 16, 26


def labelled_axes(
    labels: Sequence[str],
    title: str,
    xlabel: str,
    least: tuple[float, float],
    *,
    whole: bool = False,
) -> tuple[Figure, Axes]:
    """A figure of lines that `label_ends` labels at the right.

    Args:
      labels: texts, for which there is room.
      title: what is drawn; stands above the y axis.
      xlabel: of the x axis.
      least: the width of the axes and the least height of the figure, in pixels.
      whole: whether the x axis is marked at whole numbers only.
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
    """Labels lines at the right end, at their values or moved apart from each other.

    Args:
      axes: with limits set; thin leaders join the labels to the lines.
      labels: texts.
      values: where the lines end.
      colours: of labels and leaders.
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
    """Moves values apart to at least `gap`, each as little as can be.

    The least-squares positions under the gaps are an isotonic regression of the
    values less the gaps below them.

    Args:
      values: where the labels would like to stand, in any order.
      gap: least distance between neighbours.
      low: lowest position; the highest is `high` as long as all of them fit.
      high: highest position.

    Returns:
      The positions, in the order of `values`.
    """
    order = np.argsort(values, kind="stable")
    below = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(values, float)[order] - below).x
    moved = np.clip(moved, low, max(low, high - gap * (len(order) - 1))) + below
    places = np.empty(len(order))
    places[order] = moved
    return places.tolist()
