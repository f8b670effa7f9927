"""Pareto front of calibrated NLL and the cost of a prediction."""

from collections.abc import Iterable, Mapping, Sequence

from edp.report.figures.pareto import pareto_figure
from edp.report.figures.pareto_labels import Point
from edp.report.page.markup import Section, figure, single
from edp.report.page.ranking import unit
from edp.report.rows import Row, central_value, is_plain, series_by_student

CAPTION = (
    "Each point is a student or an ensemble; cheaper is further left, better is lower. "
    "The solid line is the Pareto front: no other model is better in one without being "
    "worse in the other. The dashed line joins the ensembles of each size."
)
_PLAIN = " Hollow points were distilled without a perturbation."
_REST = " Small grey points without a name are the other students near these."


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Computes the Pareto front of pairs of numbers; lower is better.

    Returns:
      Indices of the points that no other point dominates (at least as good in both
      and better in one), ascending in the first number. Equal points are all kept.
    """
    chosen: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        last = points[chosen[-1]] if chosen else None
        if last is None or points[i][1] < last[1] or points[i] == last:
            chosen.append(i)
    return chosen


def read_points(models: Iterable[Row]) -> tuple[list[Point], str]:
    """Returns the points of rows with a calibrated NLL, and the unit of cost.

    The cost is FLOPs per image if all such rows have them, else forward passes of one
    plain network. Rows without a cost are left out.

    Args:
      models: rows of `results.json`, or models of a summary over seeds.
    """
    models = [row for row in models if central_value(row, "cnll") is not None]
    key, unit_name, scale = "inference_cost", "forward passes of one network", 1.0
    counts = [central_value(row, "inference_flops") for row in models]
    if counts and all(counts):
        scale, prefix = unit(counts)
        key, unit_name = "inference_flops", f"{prefix}FLOP per image"
    models = [row for row in models if (central_value(row, key) or 0) > 0]
    pairs = [
        (scale * central_value(row, key), central_value(row, "cnll")) for row in models
    ]
    best, colours = front(pairs), series_by_student(models)
    points = [
        Point(
            name=str(row["model"]),
            cost=cost,
            cnll=cnll,
            error=_error(row["cnll"]),
            kind=str(row.get("student") or "student")
            if row.get("kind") == "student"
            else None,
            plain=is_plain(row),
            on_front=i in best,
            series=colours.get(str(row["model"])),
        )
        for i, (row, (cost, cnll)) in enumerate(zip(models, pairs, strict=True))
    ]
    return points, unit_name


def pareto_svg(models: Iterable[Row]) -> str | None:
    """Draws `read_points`; None if there are none."""
    points, unit_name = read_points(models)
    return pareto_figure(points, unit_name) if points else None


def pareto_section(rows: Sequence[Row]) -> Section:
    """Draws calibrated NLL of students and ensembles against cost."""
    points, unit_name = read_points(rows)
    if not points:
        return Section()
    svg = pareto_figure(points, unit_name)
    best = ", ".join(p.name for p in points if p.on_front)
    plain = _PLAIN * any(p.plain for p in points)
    rest = _REST * any(not p.is_named for p in points)
    caption = f"On the Pareto front: {best}. {CAPTION}{plain}{rest}"
    return Section(figure(caption, single(svg)), {"pareto": svg})


def _error(cnll: float | Mapping[str, float]) -> float:
    return cnll.get("se", 0.0) if isinstance(cnll, Mapping) else 0.0
