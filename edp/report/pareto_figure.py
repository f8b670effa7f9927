"""The drawing of a Pareto front whose points lie in few places along the x axis."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from edp.report.figures import spread
from edp.report.markup import shorten
from edp.report.svg import INK, MUTED, PAPER, STYLE, new_figure, series, to_svg

# In pixels: the height of a small label, the width of its letters, and how far it is
# from its points; the same of the front's labels; and a line of the legend.
_LINE, _LETTER, _LEAD = 14, 5.7, 24
_FRONT_LINE, _FRONT_LETTER, _FRONT_LEAD = 17, 7.6, 5
_LEGEND_LINE, _LEGEND_LETTER = 19, 6.3
_LEFT, _BOTTOM, _INSIDE = 52, 42, 20
_WIDTHS, _HEIGHTS = (340, 640), (260, 800)  # of the axes
_NEAR = 16  # Points no further apart than this along the x axis are labelled together.
_LETTERS = (8, 28)  # of a name

_ENSEMBLES = "ensembles"
_PLAIN = "hollow: taught on inputs as they are"


class Point(NamedTuple):
    """One predictor.

    Attributes:
      name: what it is called.
      cost: of a prediction, above 0.
      cnll: its calibrated NLL.
      error: half the height of its error bar; 0 without.
      kind: of student; None for an ensemble.
      plain: whether it is a student distilled on the inputs as they are.
      on_front: whether it is on the front.
    """

    name: str
    cost: float
    cnll: float
    error: float
    kind: str | None
    plain: bool
    on_front: bool


@matplotlib.rc_context(STYLE)
def pareto_figure(points: Sequence[Point], unit: str) -> str:
    """Draws calibrated NLL against the cost of a prediction, and the front.

    The points of the front are joined by stairs and labelled below them; the others
    are labelled in small letters beside them, moved apart where these would overlap.

    Args:
      points: at least one.
      unit: of their costs.

    Returns:
      An `<svg>` element.
    """
    points = sorted(points, key=lambda p: (p.cost, -p.cnll))
    groups = _groups(points)
    inner = _width(points, groups)
    place = _placer(points, inner)
    labels = _labels(groups, place)
    reach = [place(p) + _LEAD + _LETTER * len(name) for p, name in labels if name]
    reach += [
        place(p) + _FRONT_LETTER * len(shorten(p.name, _LETTERS[1]))
        for p in points
        if p.on_front
    ]
    right = max(12.0, max(reach) + 4 - inner)
    kinds = list(dict.fromkeys(p.kind for p in points if p.kind))
    colours = {kind: series(i) for i, kind in enumerate(kinds)}
    legend = _legend(points, colours, _LEFT + inner + right)
    top = 50 + _LEGEND_LINE * (1 + max(line for *_, line in legend))
    height, limits = _heights(points, groups)

    figure, axes = new_figure(
        _LEFT + inner + right, top + height + _BOTTOM, _LEFT, right, top, _BOTTOM
    )
    axes.set(xlim=(0, inner), ylim=limits, xlabel=unit)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xticks(*_ticks(points, place))
    _draw(axes, points, place, colours)
    for group in groups:
        own = [(p, name) for p, name in labels if p in group]
        _label_rest(axes, own, place, colours, _floor(points, group))
        _label_front(axes, [p for p in group if p.on_front], place, colours)
    _draw_legend(axes, legend, top, height)
    said = ", ".join(f"{p.name} {p.cost:.3g} {p.cnll:.4f}" for p in points)
    best = ", ".join(p.name for p in points if p.on_front)
    return to_svg(
        figure, "pareto", f"Calibrated NLL by {unit}: {said}. On the front: {best}"
    )


def _placer(points: Sequence[Point], inner: float) -> Callable[[Point], float]:
    """Point -> pixels from the left of the axes, by the logarithm of its cost."""
    first, last = (math.log(points[i].cost) for i in (0, -1))
    scale = (inner - 2 * _INSIDE) / ((last - first) or 1.0)
    return lambda point: _INSIDE + scale * (math.log(point.cost) - first)


def _groups(points: Sequence[Point]) -> list[list[Point]]:
    """Points that are near each other along the x axis, from the left."""
    place = _placer(points, _WIDTHS[1])
    groups: list[list[Point]] = []
    for point in points:
        if groups and place(point) - place(groups[-1][-1]) <= _NEAR:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _width(points: Sequence[Point], groups: Sequence[Sequence[Point]]) -> float:
    """Of the axes: as much as the labels between the groups ask for, within limits."""
    place = _placer(points, _WIDTHS[1])
    asked = [0.0]
    for group, after in itertools.pairwise(groups):
        letters = [min(len(p.name), _LETTERS[1]) for p in group if not p.on_front]
        room = _LEAD + _LETTER * max(letters) + 16 if letters else _LEAD
        asked.append(room / (place(after[0]) - place(group[-1])))
    least, most = _WIDTHS
    return min(most, max(least, max(asked) * most))


def _labels(
    groups: Sequence[Sequence[Point]], place: Callable[[Point], float]
) -> list[tuple[Point, str]]:
    """The names beside points, cut where the next group is near; '' on the front."""
    labels = []
    least, most = _LETTERS
    for group, after in itertools.pairwise([*groups, None]):
        room = math.inf
        if after:
            room = (place(after[0]) - place(group[-1]) - _LEAD - 12) / _LETTER
        letters = int(max(least, min(most, room)))
        labels += [(p, "" if p.on_front else shorten(p.name, letters)) for p in group]
    return labels


def _floor(points: Sequence[Point], group: Sequence[Point]) -> float:
    """The height of the front beside a group."""
    return min(p.cnll for p in points if p.cost <= group[-1].cost)


def _heights(
    points: Sequence[Point], groups: Sequence[Sequence[Point]]
) -> tuple[float, tuple[float, float]]:
    """Of the axes, in pixels and in calibrated NLL, with room for all labels."""
    low = min(p.cnll - p.error for p in points)
    high = max(p.cnll + p.error for p in points)
    if not high > low:
        low, high = low - 0.05 * abs(low or 1), high + 0.05 * abs(high or 1)
    above = 14
    below = 12 + _FRONT_LINE * max(sum(p.on_front for p in g) for g in groups)
    asked = [_HEIGHTS[0]]
    for group in groups:
        count = sum(not p.on_front for p in group)
        share = max(0.1, (high - _floor(points, group)) / (high - low))
        asked.append(above + below + _LINE * (count + 1) / share)
    height = min(_HEIGHTS[1], max(asked))
    pixel = (high - low) / (height - above - below)
    return height, (low - below * pixel, high + above * pixel)


def _ticks(
    points: Sequence[Point], place: Callable[[Point], float]
) -> tuple[list[float], list[str]]:
    """At the costs of the ensembles, or of all where there are none."""
    chosen: list[Point] = []
    for point in [p for p in points if p.kind is None] or points:
        if not chosen or place(point) - place(chosen[-1]) >= 44:
            chosen.append(point)
    return [place(p) for p in chosen], [f"{p.cost:.3g}" for p in chosen]


def _draw(
    axes: Axes,
    points: Sequence[Point],
    place: Callable[[Point], float],
    colours: dict[str, str],
) -> None:
    """The front, the curve of the ensembles, and the points."""
    best = [p for p in points if p.on_front]
    axes.step(
        [*map(place, best), axes.get_xlim()[1]],
        [*(p.cnll for p in best), best[-1].cnll],
        where="post", color=INK, linewidth=1.6, zorder=2,
    )  # fmt: skip
    ensembles = [p for p in points if p.kind is None]
    axes.plot(
        [*map(place, ensembles)], [p.cnll for p in ensembles],
        color=MUTED, linewidth=1, dashes=(4, 2.5), zorder=1,
    )  # fmt: skip
    for point in points:
        colour = colours.get(point.kind, INK)
        x, y = place(point), point.cnll
        if point.error:
            axes.plot(
                [x, x], [y - point.error, y + point.error],
                color=colour, linewidth=1.1, zorder=2.5, clip_on=False,
            )  # fmt: skip
        axes.plot(
            [x], [y], color=colour, clip_on=False, linestyle="",
            zorder=4 if point.on_front else 3, **_marker(point, colour),
        )  # fmt: skip


def _marker(point: Point, colour: str) -> dict:
    return {
        "marker": "s" if point.kind is None else "o",
        "markersize": 8 if point.on_front else 5.5,
        "markerfacecolor": PAPER if point.plain else colour,
        "markeredgewidth": 1.4,
    }


def _label_rest(
    axes: Axes,
    labels: Sequence[tuple[Point, str]],
    place: Callable[[Point], float],
    colours: dict[str, str],
    floor: float,
) -> None:
    """Names beside points, in one column above the front, joined by leaders."""
    right = max(place(p) for p, _ in labels)
    labels = [(p, name) for p, name in labels if name]
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.bbox.height
    places = spread(
        [p.cnll for p, _ in labels],
        _LINE * pixel,
        max(floor, low) + 0.8 * _LINE * pixel,
        high - 0.5 * _LINE * pixel,
    )
    for (point, name), y in zip(labels, places, strict=True):
        colour = colours.get(point.kind, INK)
        axes.plot(
            [place(point) + 4, right + 9, right + _LEAD - 3], [point.cnll, point.cnll, y],
            color=colour, linewidth=0.6, zorder=2, clip_on=False,
        )  # fmt: skip
        axes.text(
            right + _LEAD, y, name, color=colour, fontsize=9.5, va="center_baseline",
            zorder=2.2,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "linewidth": 0},
        )  # fmt: skip


def _label_front(
    axes: Axes,
    points: Sequence[Point],
    place: Callable[[Point], float],
    colours: dict[str, str],
) -> None:
    """Names below the front, one below the other where points are near each other."""
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.bbox.height
    below = math.inf
    for point in sorted(points, key=lambda p: -p.cnll):
        below = min(point.cnll - point.error, below) - _FRONT_LINE * pixel
        axes.text(
            place(point) - _FRONT_LEAD, below, shorten(point.name, _LETTERS[1]),
            color=colours.get(point.kind, INK), fontweight="bold",
            va="center_baseline", zorder=5,
        )  # fmt: skip


def _legend(
    points: Sequence[Point], colours: dict[str, str], width: float
) -> list[tuple[str, str, Point | None, float, int]]:
    """Entries: text, colour, a point that looks like it, pixels from the left, line."""
    entries = []
    if any(p.kind is None for p in points):
        entries.append((_ENSEMBLES, INK, Point("", 1, 0, 0, None, False, False)))
    for kind, colour in colours.items():
        entries.append((kind, colour, Point("", 1, 0, 0, kind, False, False)))
    if any(p.plain for p in points):
        entries.append((_PLAIN, MUTED, Point("", 1, 0, 0, "", True, False)))
    placed, x, line = [], 0.0, 0
    for text, colour, example in entries:
        taken = 16 + _LEGEND_LETTER * len(text)
        if x and x + taken > width:
            x, line = 0.0, line + 1
        placed.append((text, colour, example, x, line))
        x += taken + 14
    return placed


def _draw_legend(axes: Axes, legend: Sequence, top: float, height: float) -> None:
    """The title, the legend below it, and what the y axis is."""
    inner = axes.get_xlim()[1]

    def across(x):
        return (x - _LEFT) / inner

    def up(y):  # pixels from the top of the figure
        return 1 + (top - y) / height

    for text, colour, example, x, line in legend:
        y = up(34 + _LEGEND_LINE * line)
        axes.plot(
            [across(x + 5)], [y], color=colour, linestyle="", clip_on=False,
            transform=axes.transAxes, **_marker(example, colour),
        )  # fmt: skip
        axes.text(
            across(x + 14), y, text, color=colour, fontsize=10,
            transform=axes.transAxes, va="center_baseline",
        )  # fmt: skip
    for y, text, style in (
        (
            10,
            "Nothing beats what the line joins",
            {"fontsize": 12, "fontweight": "bold"},
        ),
        (top - 12, "calibrated NLL (lower is better)", {"color": MUTED}),
    ):
        axes.text(
            across(0), up(y), text,
            transform=axes.transAxes, va="center_baseline", **style,
        )  # fmt: skip
