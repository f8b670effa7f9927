"""Figure of a Pareto front whose points share a few costs."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from edp.report.figures import pareto_labels as layout
from edp.report.figures.axes import spread
from edp.report.figures.pareto_labels import Point
from edp.report.figures.svg import INK, MUTED, PAPER, STYLE, new_figure, series, to_svg
from edp.report.page.markup import shorten

# In pixels: width of a letter and offset of the front's labels; height of a line and
# width of a letter of the legend; margins of the axes.
_FRONT_LETTER, _FRONT_LEAD = 7.6, 5
_LEGEND_LINE, _LEGEND_LETTER = 19, 6.3
_LEFT, _BOTTOM = 52, 42

_MARKERS = "o^Dvp*"
_TITLE = "Lower left is better; solid: Pareto front"
_ENSEMBLES = "ensembles"
_PLAIN = "hollow: distilled without a perturbation"


@matplotlib.rc_context(STYLE)
def pareto_figure(points: Sequence[Point], unit: str) -> str:
    """Draws calibrated NLL against the cost of a prediction, and the front.

    Points on the front are joined by steps and labelled below; the ensembles and the
    students with a colour have smaller labels at their right, spread apart where they
    would overlap. Other students are grey and have none.

    Args:
      points: at least one.
      unit: unit of the costs.

    Returns:
      An `<svg>` element.
    """
    kinds = dict.fromkeys(p.kind for p in points if p.kind)
    markers = dict(zip(kinds, itertools.cycle(_MARKERS))) | {None: "s"}
    points = sorted(points, key=lambda p: (p.cost, -p.cnll))
    rest = [p for p in points if not p.is_named]
    points = [p for p in points if p.is_named]
    groups = layout.near_groups(points)
    inner = layout.width(points, groups)
    place = layout.placer(points, inner)
    labels = layout.cut_labels(groups, place)
    reach = [
        place(p) + layout.LEAD + layout.LETTER * len(name) for p, name in labels if name
    ]
    reach += [
        place(p) + _FRONT_LETTER * len(shorten(p.name, layout.LETTERS[1]))
        for p in points
        if p.on_front
    ]
    right = max(12.0, max(reach) + 4 - inner)
    legend = _legend([*points, *rest], _LEFT + inner + right)
    top = 50 + _LEGEND_LINE * (1 + max(line for *_, line in legend))
    height, limits = layout.heights(points, groups)

    figure, axes = new_figure(
        _LEFT + inner + right, top + height + _BOTTOM, _LEFT, right, top, _BOTTOM
    )
    described = f"cost: {unit}; logarithmic scale"
    axes.set(xlim=(0, inner), ylim=limits, xlabel=described)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xticks(*_ticks(points, place))
    _draw(axes, points, rest, place, markers)
    for group in groups:
        own = [(p, name) for p, name in labels if p in group]
        _label_rest(axes, own, place, layout.floor(points, group))
        _label_front(axes, [p for p in group if p.on_front], place)
    _draw_legend(axes, legend, top, height, markers)
    described = ", ".join(
        f"{p.name} {plain_number(p.cost)} {p.cnll:.4f}" for p in [*points, *rest]
    )
    best = ", ".join(p.name for p in points if p.on_front)
    return to_svg(
        figure, "pareto", f"Calibrated NLL by {unit}: {described}. On the front: {best}"
    )


def _ticks(
    points: Sequence[Point], place: Callable[[Point], float]
) -> tuple[list[float], list[str]]:
    """Returns ticks at the ensembles' costs and at other costs not near them."""
    chosen: list[Point] = []
    for point in sorted(points, key=lambda p: p.kind is not None):
        if all(abs(place(point) - place(other)) >= 44 for other in chosen):
            chosen.append(point)
    return [place(p) for p in chosen], [plain_number(p.cost) for p in chosen]


def plain_number(value: float) -> str:
    """Formats with three digits and without an exponent."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _colour(point: Point) -> str:
    return INK if point.series is None else series(point.series)


def _draw(
    axes: Axes,
    points: Sequence[Point],
    rest: Sequence[Point],
    place: Callable[[Point], float],
    markers: Mapping[str | None, str],
) -> None:
    """Draws the front, the curve of the ensembles, and the points."""
    for point in rest:  # those outside the limits are cut off
        axes.plot(
            [place(point)], [point.cnll], linestyle="", color=MUTED, alpha=0.6,
            zorder=1.5, **_marker(point, MUTED, markers),
        )  # fmt: skip
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
        colour = _colour(point)
        x, y = place(point), point.cnll
        if point.error:
            axes.plot(
                [x, x], [y - point.error, y + point.error],
                color=colour, linewidth=1.1, zorder=2.5, clip_on=False,
            )  # fmt: skip
        axes.plot(
            [x], [y], color=colour, clip_on=False, linestyle="",
            zorder=4 if point.on_front else 3, **_marker(point, colour, markers),
        )  # fmt: skip


def _marker(point: Point, colour: str, markers: Mapping[str | None, str]) -> dict:
    return {
        "marker": markers[point.kind],
        "markersize": 8 if point.on_front else 5.5,
        "markerfacecolor": PAPER if point.plain else colour,
        "markeredgewidth": 1.4,
    }


def _label_rest(
    axes: Axes,
    labels: Sequence[tuple[Point, str]],
    place: Callable[[Point], float],
    floor: float,
) -> None:
    """Labels points in one column above the front, with leaders."""
    if len(labels) == 1 and labels[0][1]:
        _label_alone(axes, *labels[0], place)
        return
    right = max(place(p) for p, _ in labels)
    labels = [(p, name) for p, name in labels if name]
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.bbox.height
    places = spread(
        [p.cnll for p, _ in labels],
        layout.LINE * pixel,
        max(floor, low) + 0.8 * layout.LINE * pixel,
        high - 0.5 * layout.LINE * pixel,
    )
    for (point, name), y in zip(labels, places, strict=True):
        colour = _colour(point)
        axes.plot(
            [place(point) + 4, right + 9, right + layout.LEAD - 3],
            [point.cnll, point.cnll, y],
            color=colour, linewidth=0.6, zorder=2, clip_on=False,
        )  # fmt: skip
        axes.text(
            right + layout.LEAD, y, name,
            color=colour, fontsize=9.5, va="center_baseline", zorder=2.2,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "linewidth": 0},
        )  # fmt: skip


def _label_alone(
    axes: Axes,
    point: Point,
    name: str,
    place: Callable[[Point], float],
) -> None:
    """Labels a lone point above it, away from the ensembles' curve."""
    axes.annotate(
        name, (place(point), point.cnll + point.error), (2, 9),
        textcoords="offset points", color=_colour(point), fontsize=9.5,
        va="center_baseline", annotation_clip=False,
    )  # fmt: skip


def _label_front(
    axes: Axes,
    points: Sequence[Point],
    place: Callable[[Point], float],
) -> None:
    """Labels points of the front below it, stacked if they are near each other."""
    low, high = axes.get_ylim()
    pixel = (high - low) / axes.bbox.height
    below = math.inf
    for point in sorted(points, key=lambda p: -p.cnll):
        below = min(point.cnll - point.error, below) - layout.FRONT_LINE * pixel
        axes.text(
            place(point) - _FRONT_LEAD, below, shorten(point.name, layout.LETTERS[1]),
            color=_colour(point), fontweight="bold",
            va="center_baseline", zorder=5,
        )  # fmt: skip


def _legend(
    points: Sequence[Point], width: float
) -> list[tuple[str, Point, float, int]]:
    """Returns entries: text, example point, pixels from the left, line."""
    entries = []
    if any(p.kind is None for p in points):
        entries.append((_ENSEMBLES, Point("", 1, 0, 0, None, False, False)))
    for kind in dict.fromkeys(p.kind for p in points if p.kind):
        entries.append((kind, Point("", 1, 0, 0, kind, False, False)))
    if plain := next((p for p in points if p.plain), None):
        entries.append((_PLAIN, Point("", 1, 0, 0, plain.kind, True, False)))
    placed, x, line = [], 0.0, 0
    for text, example in entries:
        taken = 16 + _LEGEND_LETTER * len(text)
        if x and x + taken > width:
            x, line = 0.0, line + 1
        placed.append((text, example, x, line))
        x += taken + 14
    return placed


def _draw_legend(
    axes: Axes,
    legend: Sequence,
    top: float,
    height: float,
    markers: Mapping[str | None, str],
) -> None:
    """Draws the title, the legend below it, and the label of the y axis."""
    inner = axes.get_xlim()[1]

    def across(x):
        return (x - _LEFT) / inner

    def up(y):  # pixels from the top of the figure
        return 1 + (top - y) / height

    for text, example, x, line in legend:
        y = up(34 + _LEGEND_LINE * line)
        axes.plot(
            [across(x + 5)], [y], color=MUTED, linestyle="", clip_on=False,
            transform=axes.transAxes, **_marker(example, MUTED, markers),
        )  # fmt: skip
        axes.text(
            across(x + 14), y, text, color=MUTED, fontsize=10,
            transform=axes.transAxes, va="center_baseline",
        )  # fmt: skip
    for y, text, style in (
        (10, _TITLE, {"fontsize": 12, "fontweight": "bold"}),
        (top - 12, "calibrated NLL (lower is better)", {"color": MUTED}),
    ):
        axes.text(
            across(0), up(y), text,
            transform=axes.transAxes, va="center_baseline", **style,
        )  # fmt: skip
