"""Pareto front of calibrated NLL and the cost of a prediction."""

from collections.abc import Iterable, Mapping, Sequence

from edp.report.figures.pareto import pareto_figure
from edp.report.figures.pareto_labels import Point
from edp.report.page.markup import Section, absent, figure, single
from edp.report.page.ranking import unit
from edp.report.rows import Row, central_value, is_plain

CAPTION = (
    "Each point is a student or an ensemble; cheaper is further left, better is lower. "
    "The solid line is the Pareto front: no other model is better in one without being "
    "worse in the other. Hollow points were distilled without a perturbation. Look for "
    "students on the front and below the dashed line, which joins the ensembles of "
    "each size."
)


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
    key, unit_name, scale = "inference_cost", "forward passes of one plain network", 1.0
    counts = [central_value(row, "inference_flops") for row in models]
    if counts and all(counts):
        scale, prefix = unit(counts)
        key, unit_name = "inference_flops", f"{prefix}FLOP per image"
    models = [row for row in models if (central_value(row, key) or 0) > 0]
    pairs = [
        (scale * central_value(row, key), central_value(row, "cnll")) for row in models
    ]
    best = front(pairs)
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
    svg = pareto_svg(rows)
    if svg is None:
        return Section(absent("No model has both a calibrated NLL and a cost."))
    body = figure(CAPTION, single(svg, "single wide-figure"))
    return Section(body, {"pareto": svg})


def _error(cnll: float | Mapping[str, float]) -> float:
    return cnll.get("se", 0.0) if isinstance(cnll, Mapping) else 0.0
