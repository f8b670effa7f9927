"""Figures over seeds: means with standard errors."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from edp.report.figures.svg import INK, MUTED, PAPER, STYLE, new_figure, series, to_svg
from edp.report.page.markup import shorten
from edp.report.rows import CLEAN_INPUTS, Row, inputs_name, is_plain

_LINE = 20  # height of a row, in pixels
_NAME = 7.0  # width of a letter
_PANELS = (
    ("pairwise_kl", "pairwise KL", 1, "{:#.3g}"),
    ("disagreement_rate", "disagreement rate, %", 100, "{:.1f}"),
    ("error", "mean member error, %", 100, "{:.1f}"),
)


@matplotlib.rc_context(STYLE)
def cnll(models: Sequence[Row]) -> str | None:
    """Draws calibrated NLL: the ensembles as a curve, below it the sorted students.

    Both share one x axis. Whiskers and the curve's band are standard errors over
    seeds. Students distilled without a perturbation have hollow dots.

    Args:
      models: `models` of `summary.summarize_runs`.

    Returns:
      An `<svg>` element; None if no model has a calibrated NLL.
    """
    models = [model for model in models if "cnll" in model]
    ensembles = [m for m in models if m.get("kind") == "ensemble"]
    students = [m for m in models if m.get("kind") == "student"]
    students.sort(key=lambda m: m["cnll"]["mean"])
    rows = [*ensembles, *students]
    if not rows:
        return None
    gap = 0.6 if ensembles else 0.0
    places = [i + gap * (i >= len(ensembles)) for i in range(len(rows))]
    names = [shorten(str(row["model"]), 32) for row in rows]
    left, inner, right, top, bottom = 14 + _NAME * max(map(len, names)), 330, 62, 28, 40
    height = top + _LINE * (places[-1] + 1) + bottom
    figure, axes = new_figure(left + inner + right, height, left, right, top, bottom)
    _rows(axes, names, places)
    axes.set_title(
        "calibrated NLL (lower is better)",
        x=-left / inner, pad=10, loc="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    axes.set_xlabel("hollow: distilled without a perturbation; ± standard error")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    means = np.array([row["cnll"]["mean"] for row in rows])
    errors = np.array([row["cnll"].get("se", 0.0) for row in rows])
    low, high = (means - errors).min(), (means + errors).max()
    margin = 0.06 * (high - low) or 0.05 * abs(low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    if ensembles:
        _curve(axes, places, means[: len(ensembles)], errors[: len(ensembles)])
    for row, place, mean, error in zip(rows, places, means, errors, strict=True):
        colour = INK
        if row.get("kind") == "student":
            colour = series(0) if is_plain(row) else series(1)
            axes.plot(
                [mean], [place], "o", color=colour, markersize=6, zorder=4,
                markerfacecolor=PAPER if is_plain(row) else colour,
                markeredgewidth=1.6, clip_on=False,
            )  # fmt: skip
        if error:
            ends = [mean - error, mean + error]
            axes.plot(ends, [place, place], color=colour, clip_on=False)
        axes.annotate(
            f"{mean:.4f}", (1, place), (8, 0), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", va="center_baseline", annotation_clip=False,
        )  # fmt: skip
    described = ", ".join(f"{r['model']} {_said(r['cnll'], 1, '{:.4f}')}" for r in rows)
    return to_svg(figure, "c", f"Calibrated NLL: {described}")


@matplotlib.rc_context(STYLE)
def argument(diversity: Sequence[Row]) -> str | None:
    """Draws the teachers' diversity and error on training, test and perturbed inputs.

    Args:
      diversity: `diversity` of `summary.summarize_runs`; perturbations are drawn at
        the students' step sizes.

    Returns:
      An `<svg>` element; None if there is nothing to draw.
    """
    rows = [row for row in diversity if "@" not in str(row["inputs"])]
    panels = [panel for panel in _PANELS if rows and all(panel[0] in r for r in rows)]
    if not panels:
        return None
    names = [inputs_name(row).partition(" (")[0] for row in rows]
    # Perturbations with the same name get the student's name instead.
    names = [
        shorten(name if names.count(name) == 1 else str(row["inputs"]), 40)
        for name, row in zip(names, rows, strict=True)
    ]
    left, inner, beside, top, bottom = (
        14 + _NAME * max(map(len, names)),
        130,
        100,
        28,
        8,
    )
    width, height = (
        left + len(panels) * (inner + beside),
        top + _LINE * len(rows) + bottom,
    )
    figure, axes = new_figure(width, height, left, width - left - inner, top, bottom)
    _rows(axes, names, range(len(rows)))
    described = []
    for i, (key, title, scale, form) in enumerate(panels):
        if i:
            box = axes.get_position()
            start = box.x0 + i * (inner + beside) / width
            panel = figure.add_axes((start, box.y0, box.width, box.height))
            _rows(panel, [], range(len(rows)))
        else:
            panel = axes
        panel.spines["bottom"].set_visible(False)
        panel.set_xticks([])
        panel.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=10)
        _bars(panel, rows, key, scale, form)
        described += [
            f"{n} {_said(r[key], scale, form)}"
            for n, r in zip(names, rows, strict=True)
        ]
        described[-len(rows)] = f"{title}: {described[-len(rows)]}"
    return to_svg(figure, "a", ", ".join(described))


def _curve(
    axes: Axes, places: Sequence[float], means: np.ndarray, errors: np.ndarray
) -> None:
    """Draws the ensembles, with vertical lines from each size through the students."""
    own = places[: len(means)]
    axes.fill_betweenx(
        own, means - errors, means + errors, color=MUTED, alpha=0.25, linewidth=0
    )
    axes.plot(means, own, "-o", color=INK, linewidth=2, markersize=5)
    for place, mean in zip(own, means, strict=True):
        axes.plot(
            [mean, mean], [place, places[-1] + 0.5],
            color=MUTED, linewidth=0.9, dashes=(3, 2.5), zorder=1,
        )  # fmt: skip


def _bars(axes: Axes, rows: Sequence[Row], key: str, scale: float, form: str) -> None:
    """Draws bars with whiskers, and a level line at the test inputs."""
    means = [scale * row[key]["mean"] for row in rows]
    errors = [scale * row[key].get("se", 0.0) for row in rows]
    end = max(m + e for m, e in zip(means, errors, strict=True)) or 1.0
    axes.set_xlim(0, end)
    for place, (row, mean, error) in enumerate(zip(rows, means, errors, strict=True)):
        colour = MUTED if row["inputs"] in CLEAN_INPUTS else series(0)
        axes.barh(place, mean, height=0.62, color=colour, lw=0, clip_on=False)
        if error:
            axes.plot(
                [mean - error, mean + error], [place] * 2, color=INK, clip_on=False
            )
        if row["inputs"] == "test":
            axes.axvline(mean, color=INK, linewidth=0.9, dashes=(3, 2.5))
        axes.annotate(
            form.format(mean), (max(mean + error, 0), place), (6, 0),
            textcoords="offset points", va="center_baseline", fontsize=10,
            annotation_clip=False,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "linewidth": 0},
        )  # fmt: skip


def _rows(axes: Axes, names: Sequence[str], places: Sequence[float]) -> None:
    """Sets the y axis to rows from the top, with names if there are any."""
    axes.set_ylim(places[-1] + 0.5, -0.5)
    axes.set_yticks(places if names else [], names)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=11, pad=6)
    axes.spines["left"].set_visible(False)


def _said(value: Row, scale: float, form: str) -> str:
    """Formats a quantity as mean ± standard error."""
    error = f" ± {form.format(scale * value['se'])}" if "se" in value else ""
    return form.format(scale * value["mean"]) + error
