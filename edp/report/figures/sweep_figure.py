"""Figure of a sweep: calibrated NLL over settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edp.report.figures import seed_figures
from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, STYLE, series, to_svg
from edp.report.page.markup import shorten
from edp.report.rows import Row


def draw(result: Mapping[str, Any]) -> str | None:
    """Draws the test cNLL of students over a sweep's settings.

    Draws curves if one numeric setting varies, else one dot for each student and
    setting, sorted.

    Args:
      result: the value of `edp.report.seeds.sweep_results.summarize_sweep`.

    Returns:
      An `<svg>` element; None without students.
    """
    if not any(row.get("kind") == "student" for row in result["rows"]):
        return None
    numbers = _numbers(result["settings"])
    if numbers is not None:
        return _curves(result, *numbers)
    rows = []
    for row in result["rows"]:
        if row.get("kind") == "student" or "setting" not in row:
            parts = (str(row["model"]), row.get("setting"))
            rows.append({**row, "model": ", ".join(filter(None, parts))})
    return seed_figures.cnll(rows)


def _numbers(settings: Sequence[Mapping[str, Any]]) -> tuple[str, dict] | None:
    """Returns the one numeric key that varies, and its value by setting."""
    keys = {key for setting in settings for key in setting["values"]}
    changed = [k for k in keys if len({s["values"][k] for s in settings}) > 1]
    try:
        (key,) = changed
        return key, {s["name"]: float(s["values"][key]) for s in settings}
    except ValueError:  # several keys, none, or no numbers
        return None


@matplotlib.rc_context(STYLE)
def _curves(result: Mapping[str, Any], key: str, numbers: Mapping[str, float]) -> str:
    curves: dict[str, list[tuple[float, Row]]] = {}
    for row in result["rows"]:
        if row.get("kind") == "student" and "cnll" in row:
            at = (numbers[row["setting"]], row)
            curves.setdefault(str(row["model"]), []).append(at)
    levels = [r for r in result["rows"] if r.get("kind") != "student" and "cnll" in r]
    levels = {str(r["model"]): r["cnll"] for r in levels if "setting" not in r}
    labels = [shorten(name, 22) for name in (*levels, *curves)]
    figure, axes = labelled_axes(
        labels,
        "calibrated NLL (lower is better)",
        f"{key}; ring: best on validation; ± standard error",
        (320, 280),
    )
    described, ends = [], []
    for i, (name, cnll) in enumerate(levels.items()):
        colour = (MUTED, INK)[i % 2]
        axes.axhline(cnll["mean"], color=colour, linewidth=1.2, dashes=(4, 2.5))
        ends.append((cnll["mean"], colour))
        described.append(f"{name} {cnll['mean']:.4f}")
    for i, (name, found) in enumerate(curves.items()):
        found.sort(key=lambda at: at[0])
        places = [place for place, _ in found]
        means = [row["cnll"]["mean"] for _, row in found]
        errors = [row["cnll"].get("se", 0.0) for _, row in found]
        axes.errorbar(
            places,
            means,
            errors,
            fmt="-o",
            color=series(i),
            linewidth=1.6,
            markersize=4,
        )
        best = [row.get("best", False) for _, row in found]
        axes.plot(
            [p for p, b in zip(places, best, strict=True) if b],
            [m for m, b in zip(means, best, strict=True) if b],
            "o", color=series(i), markersize=10, markerfacecolor="none",
        )  # fmt: skip
        ends.append((means[-1], series(i)))
        pairs = zip(places, means, strict=True)
        described.append(f"{name} {', '.join(f'{m:.4f} at {p:g}' for p, m in pairs)}")
    if min(numbers.values()) > 0 and max(numbers.values()) > 20 * min(numbers.values()):
        axes.set_xscale("log")
        # Plain numbers, not powers of ten.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    label_ends(axes, labels, *zip(*ends, strict=True))
    return to_svg(figure, "sweep", f"Calibrated NLL by {key}: {'; '.join(described)}")
