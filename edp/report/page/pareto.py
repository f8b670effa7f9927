"""What a prediction costs against how good it is, and what nothing beats in both."""

from collections.abc import Iterable, Mapping, Sequence

from edp.report.figures.pareto import pareto_figure
from edp.report.figures.pareto_labels import Point
from edp.report.page.markup import Section, absent, figure, single
from edp.report.page.ranking import unit
from edp.report.rows import Row, is_plain, middle

CAPTION = (
    "Each point is a student or an ensemble: the cheaper, the further left; the "
    "better, the lower. The line joins those that none beats in one without losing in "
    "the other; all above it pay more than they must. Hollow points were distilled on "
    "the inputs as they are. Look for students on the line, and for those below the "
    "dashed one, which joins the ensembles of each size."
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The Pareto front of pairs of numbers, of which less is better.

    Returns:
      Indices of the points to which no other is at least equal in both and better in
      one, ascending in the first number. Equal points are on it together.
    """
    chosen: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        last = points[chosen[-1]] if chosen else None
        if last is None or points[i][1] < last[1] or points[i] == last:
            chosen.append(i)
    return chosen


def read_points(models: Iterable[Row]) -> tuple[list[Point], str]:
    """The points of rows with a calibrated NLL, and the unit of their costs.

    Costs are the operations of predicting an image where all such rows have them, and
    else passes of one plain network; a row without either is left out.

    Args:
      models: rows of `results.json`, or models of a summary over seeds.
    """
    models = [row for row in models if middle(row, "cnll") is not None]
    key, said, scale = "inference_cost", "passes of one plain network", 1.0
    counts = [middle(row, "inference_flops") for row in models]
    if counts and all(counts):
        scale, prefix = unit(counts)
        key, said = "inference_flops", f"{prefix}FLOP per image"
    models = [row for row in models if (middle(row, key) or 0) > 0]
    pairs = [(scale * middle(row, key), middle(row, "cnll")) for row in models]
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
    return points, said


def pareto_svg(models: Iterable[Row]) -> str | None:
    """The figure of `read_points`; None where there are none."""
    points, said = read_points(models)
    return pareto_figure(points, said) if points else None


def pareto_section(rows: Sequence[Row]) -> Section:
    """Calibrated NLL of students and ensembles against the cost of a prediction."""
    svg = pareto_svg(rows)
    if svg is None:
        return Section(absent("There is no model to set its cost against."))
    body = figure(CAPTION, single(svg, "single wide-figure"))
    return Section(body, {"pareto": svg})


def _error(cnll: float | Mapping[str, float]) -> float:
    return cnll.get("se", 0.0) if isinstance(cnll, Mapping) else 0.0
