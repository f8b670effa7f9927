"""The report's figures: inline SVG and PNG strings, one function per figure.

Every figure is drawn once and serves dark, light and print: colours are
stand-ins that the finished SVG replaces by the page's CSS variables (`--ink`,
`--muted`, `--rule`, `--paper` and the series `--s0` … `--s7`). Text is drawn as
paths, so that it looks the same where the font is missing; what it says is
repeated in the SVG's accessible label.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.optimize import isotonic_regression

NUM_SERIES = 8
"""How many series colours the page defines; `series` repeats after that."""

_INK, _MUTED, _RULE, _PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _RULE: "rule", _PAPER: "paper"} | {
    f"#05050{i}": f"s{i}" for i in range(NUM_SERIES)
}
_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "edp",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": _INK,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": _RULE,
    "grid.linewidth": 0.8,
}


class Level(NamedTuple):
    """A student's horizontal line in `cnll_by_ensemble_size`.

    Attributes:
      name: what the line's label says; about 20 characters have room.
      cnll: its height.
      dee: where on the ensemble's curve the student stands, or None.
      series: index of its colour.
      dashed: whether to dash the line (a student distilled without moving the
        inputs).
    """

    name: str
    cnll: float
    dee: float | None
    series: int
    dashed: bool


class Curve(NamedTuple):
    """One reliability curve: arrays over the bins that hold any input.

    Attributes:
      confidence: [bins] mean confidence of the inputs in each bin.
      accuracy: [bins] share of them predicted rightly.
      share: [bins] share of all inputs that fall in the bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


class Bar(NamedTuple):
    """One bar of `bars`; `series` None draws it in the neutral colour.

    The name stands above the bar; about 44 characters have room.
    """

    name: str
    value: float
    series: int | None


@matplotlib.rc_context(_STYLE)
def cnll_by_ensemble_size(
    sizes: Sequence[int], cnll: Sequence[float], students: Sequence[Level]
) -> str:
    """Draws calibrated NLL against ensemble size, students as horizontal lines.

    Args:
      sizes: numbers of members, ascending, at least one.
      cnll: the ensemble's calibrated NLL at each size.
      students: the students' lines; labelled at the right end, moved apart
        where they would overlap and joined to their lines by thin leaders.

    Returns:
      An `<svg>` element.
    """
    ends = [*students, Level(f"DE-{sizes[-1]}", cnll[-1], None, -1, False)]
    labels = [f"{end.cnll:.4f} {end.name}" for end in ends]
    line, lead, inner = 16, 26, 230
    left, right, top, bottom = 48, lead + 6.8 * max(map(len, labels)), 26, 42
    width, height = (
        left + inner + right,
        max(280, top + bottom + line * (len(ends) + 1)),
    )
    figure, axes = _figure(width, height, left, right, top, bottom)
    axes.grid(axis="y")
    axes.set_axisbelow(True)

    heights = [level.cnll for level in students] + list(cnll)
    margin = 0.06 * (max(heights) - min(heights)) or 0.05 * abs(heights[0]) or 1.0
    low, high = min(heights) - margin, max(heights) + margin
    axes.set_ylim(low, high)
    first, last = sizes[0], max(sizes[-1], sizes[0] + 1)
    pad = 0.06 * (last - first)
    axes.set_xlim(first - pad, last + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("members in the ensemble")
    axes.set_title(
        "calibrated NLL (lower is better)",
        x=-left / inner, pad=10, loc="left", fontsize=11, color=_MUTED,
    )  # fmt: skip

    per_pixel = (high - low) / (height - top - bottom)
    places = spread(
        [end.cnll for end in ends],
        line * per_pixel,
        low + line / 2 * per_pixel,
        high - line / 2 * per_pixel,
    )
    for end, label, place in zip(ends, labels, places, strict=True):
        colour = series(end.series) if end.series >= 0 else _INK
        if end.series >= 0:
            style = (0, (4, 2.5)) if end.dashed else "-"
            axes.axhline(end.cnll, color=colour, linewidth=1.6, linestyle=style)
            # Beside the curve the equivalent is cut off: nothing meets there.
            if end.dee and min(cnll) <= end.cnll <= cnll[0]:
                axes.plot(
                    [end.dee], [end.cnll], "o", markersize=6, zorder=4,
                    markerfacecolor=_PAPER, markeredgecolor=colour,
                    markeredgewidth=1.6, clip_on=False,
                )  # fmt: skip
        beside = axes.get_yaxis_transform()
        axes.plot(
            [1, 1 + (lead - 4) / inner], [end.cnll, place],
            color=colour, linewidth=0.8, transform=beside, clip_on=False,
        )  # fmt: skip
        axes.text(
            1 + lead / inner, place, label,
            color=colour, transform=beside, va="center_baseline",
        )  # fmt: skip
    axes.plot(sizes, cnll, "-o", color=_INK, linewidth=2, markersize=5, zorder=3)

    said = [f"DE-{m} {v:.4f}" for m, v in zip(sizes, cnll, strict=True)]
    said += [f"{level.name} {level.cnll:.4f}" for level in students]
    return _to_svg(figure, "cnll", "Calibrated NLL: " + ", ".join(said))


@matplotlib.rc_context(_STYLE)
def reliability(
    curve: Curve, calibrated: Curve | None, colour: int | None, name: str
) -> str:
    """Draws accuracy against confidence; a dot's area is its bin's share of inputs.

    Args:
      curve: the probabilities as they came.
      calibrated: the same after temperature scaling, drawn dashed and hollow.
      colour: series index; None is the neutral colour.
      name: whose diagram it is; makes the SVG's ids unique on the page.

    Returns:
      An `<svg>` element.
    """
    size = 210
    figure, axes = _figure(size, size, 38, 8, 8, 36)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, dashes=(2, 2))
    ink = _INK if colour is None else series(colour)
    if calibrated is not None:
        axes.plot(
            calibrated.confidence, calibrated.accuracy,
            color=_MUTED, linewidth=1.2, dashes=(4, 2),
        )  # fmt: skip
        axes.scatter(
            calibrated.confidence, calibrated.accuracy, _areas(calibrated.share),
            facecolor=_PAPER, edgecolor=_MUTED, linewidth=1.2, zorder=3, clip_on=False,
        )  # fmt: skip
    axes.plot(curve.confidence, curve.accuracy, color=ink, linewidth=1.6, zorder=3)
    axes.scatter(
        curve.confidence, curve.accuracy, _areas(curve.share),
        color=ink, linewidth=0, zorder=4, clip_on=False,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    return _to_svg(figure, f"reliability-{name}", f"Reliability diagram of {name}")


@matplotlib.rc_context(_STYLE)
def bars(title: str, entries: Sequence[Bar], percent: bool = False) -> str:
    """Draws labelled horizontal bars from zero, the first one on top.

    Args:
      title: what is measured; stands above the bars.
      entries: the bars; their values are finite and not negative.
      percent: whether the values are shares, to be written in per cent.

    Returns:
      An `<svg>` element.
    """
    width, line, top = 330, 36, 26
    figure, axes = _figure(width, top + line * len(entries) + 4, 2, 56, top, 4)
    axes.set_axis_off()
    axes.set(ylim=(len(entries), 0), xlim=(0, max(b.value for b in entries) or 1.0))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=8)
    said = []
    for i, bar in enumerate(entries):
        colour = _MUTED if bar.series is None else series(bar.series)
        value = f"{100 * bar.value:.1f} %" if percent else f"{bar.value:.3g}"
        axes.barh(i + 0.68, bar.value, height=0.36, color=colour, linewidth=0)
        axes.plot([0, 0], [i + 0.5, i + 0.86], color=_MUTED, linewidth=0.8)
        axes.text(0, i + 0.4, bar.name, va="bottom", fontsize=10.5)
        axes.annotate(
            value, (bar.value, i + 0.68), (5, 0), textcoords="offset points",
            va="center_baseline", annotation_clip=False,
        )  # fmt: skip
        said.append(f"{bar.name} {value}")
    return _to_svg(figure, f"bars-{title}", f"{title}: " + ", ".join(said))


def image_uri(image: np.ndarray, limit: int = 64) -> str:
    """Encodes one image as a PNG data URI.

    Args:
      image: float [H, W, C] in [0, 1] (clipped); one channel is grey, of more
        than three the first three are shown.
      limit: images with a longer side than this are scaled down to it.
    """
    channels = 3 if image.shape[-1] >= 3 else 1
    pixels = np.rint(np.clip(image[..., :channels], 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    picture.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


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


def series(index: int) -> str:
    """The stand-in for the page's colour number `index`."""
    return f"#05050{index % NUM_SERIES}"


def _areas(share: np.ndarray) -> np.ndarray:
    return 6 + 160 * np.asarray(share)


def _figure(
    width: float, height: float, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    """A figure with one axes, all sizes in CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    inner_width, inner_height = width - left - right, height - top - bottom
    axes = figure.add_axes(
        (left / width, bottom / height, inner_width / width, inner_height / height)
    )
    return figure, axes


def _to_svg(figure: Figure, name: str, label: str) -> str:
    """Renders to an SVG element fit to stand inside an HTML page.

    Matplotlib's ids repeat from figure to figure: those that are referred to
    get the figure's name in front, the others go.
    """
    file = io.StringIO()
    width, height = figure.get_size_inches() * 72
    FigureCanvasSVG(figure).print_svg(file)
    svg = file.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->",
        "",
        body,
        flags=re.DOTALL,
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    prefix = re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}", name)

    def rename(found: re.Match) -> str:
        return f' id="{prefix}-{found[1]}"' if found[1] in used else ""

    body = re.sub(r'\sid="([^"]*)"', rename, body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(
        "|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found[0]]})", body
    )
    body = re.sub(r"\s*\n\s*", "\n", body)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        'style="stroke-linejoin: round; stroke-linecap: butt" '
        f'aria-label="{html.escape(label)}">{body}'
    )
