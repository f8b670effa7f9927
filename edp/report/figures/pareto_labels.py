"""Layout of the points and labels of a Pareto figure."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edp.report.page.markup import shorten

# In pixels: height, width of a letter and offset of a small label; height of the
# front's labels.
LINE, LETTER, LEAD = 14, 5.7, 24
FRONT_LINE = 17
_INSIDE = 20
_WIDTHS, _HEIGHTS = (300, 420), (260, 800)  # least and most, of the axes
_NEAR = 16  # Points at most this far apart along the x axis are labelled together.
_CLEAR = 12  # least distance between a label and the points to its right
LETTERS = (8, 22)  # least and most, of a name


class Point(NamedTuple):
    """One predictor.

    Attributes:
      name: name of the model.
      cost: cost of a prediction, above 0.
      cnll: calibrated NLL.
      error: half the height of the error bar; 0 for none.
      kind: kind of student; None for an ensemble.
      plain: whether it is a student distilled without a perturbation.
      on_front: whether it is on the Pareto front.
      series: colour index; None for an ensemble, and for a student without a colour.
    """

    name: str
    cost: float
    cnll: float
    error: float
    kind: str | None
    plain: bool
    on_front: bool
    series: int | None = None

    @property
    def is_named(self) -> bool:
        """Whether the figure names it: not one of the grey students."""
        return self.kind is None or self.on_front or self.series is not None


def placer(points: Sequence[Point], inner: float) -> Callable[[Point], float]:
    """Returns a function from a point to pixels from the left, by its log cost."""
    first, last = (math.log(points[i].cost) for i in (0, -1))
    scale = (inner - 2 * _INSIDE) / ((last - first) or 1.0)
    return lambda point: _INSIDE + scale * (math.log(point.cost) - first)


def near_groups(points: Sequence[Point]) -> list[list[Point]]:
    """Groups points that are near each other along the x axis, from the left."""
    place = placer(points, _WIDTHS[1])
    groups: list[list[Point]] = []
    for point in points:
        if groups and place(point) - place(groups[-1][-1]) <= _NEAR:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def width(points: Sequence[Point], groups: Sequence[Sequence[Point]]) -> float:
    """Computes the width of the axes from the labels between groups, in pixels."""
    least, most = (width - 2 * _INSIDE for width in _WIDTHS)
    place = placer(points, _WIDTHS[1])
    needed = [least / most]
    for group, after in itertools.pairwise(groups):
        letters = [min(len(p.name), LETTERS[1]) for p in group if not p.on_front]
        if letters:
            room = lead(group) + LETTER * max(letters) + _CLEAR
            needed.append(room / (place(after[0]) - place(group[-1])))
    return min(1.0, max(needed)) * most + 2 * _INSIDE


def lead(group: Sequence[Point]) -> float:
    """Returns the offset of a group's labels, in pixels."""
    return LEAD if len(group) > 1 else 2.0


def cut_labels(
    groups: Sequence[Sequence[Point]], place: Callable[[Point], float]
) -> list[tuple[Point, str]]:
    """Returns labels, cut to the space before the next group; '' on the front."""
    labels = []
    least, most = LETTERS
    for group, after in itertools.pairwise([*groups, None]):
        room = math.inf
        if after:
            room = place(after[0]) - place(group[-1]) - lead(group) - _CLEAR
        letters = int(max(least, min(most, room / LETTER + 1e-6)))
        labels += [(p, "" if p.on_front else shorten(p.name, letters)) for p in group]
    return labels


def floor(points: Sequence[Point], group: Sequence[Point]) -> float:
    """Returns the calibrated NLL of the front at a group."""
    return min(p.cnll for p in points if p.cost <= group[-1].cost)


def heights(
    points: Sequence[Point], groups: Sequence[Sequence[Point]]
) -> tuple[float, tuple[float, float]]:
    """Computes the height in pixels and the y limits that fit all labels."""
    low = min(p.cnll - p.error for p in points)
    high = max(p.cnll + p.error for p in points)
    if not high > low:
        low, high = low - 0.05 * abs(low or 1), high + 0.05 * abs(high or 1)
    above = 14
    below = 12 + FRONT_LINE * max(sum(p.on_front for p in g) for g in groups)
    needed = [_HEIGHTS[0]]
    for group in groups:
        count = sum(not p.on_front for p in group)
        share = max(0.1, (high - floor(points, group)) / (high - low))
        needed.append(above + below + LINE * (count + 1) / share)
    height = min(_HEIGHTS[1], max(needed))
    pixel = (high - low) / (height - above - below)
    return height, (low - below * pixel, high + above * pixel)
