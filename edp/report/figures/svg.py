"""SVG elements that follow the page's colours, and standalone SVG files.

A figure is drawn once for dark, light and print: placeholder colours are replaced in
the SVG by the page's CSS variables (`--ink`, `--muted`, `--rule`, `--paper` and the
series `--s0` … `--s7`). Text stays text: it is laid out in DejaVu Sans, and the fonts
of other machines are narrower. The SVG's accessible label repeats the values.
`standalone` turns the element into a file.
"""

import html
import io
import re

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from edp.report.rows import NUM_SERIES

INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
LIGHT = {
    "ink": "#1b1f24",
    "muted": "#5b6570",
    "rule": "#d9dee4",
    "paper": "#fff",
    "s0": "#2563a8",
    "s1": "#b9520f",
    "s2": "#23784a",
    "s3": "#7a4bb0",
    "s4": "#b8324a",
    "s5": "#0b7078",
    "s6": "#756410",
    "s7": "#6b5b4f",
}
"""The variables' values in light, on the page and in files."""

_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {
    f"#05050{i}": f"s{i}" for i in range(NUM_SERIES)
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edp",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-6, 7),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
}


def series(index: int) -> str:
    """Returns the placeholder for the page's colour number `index`, from 0."""
    return f"#05050{index % NUM_SERIES}"


def new_figure(
    width: float, height: float, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    """Returns a figure with one axes; sizes are in CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    inner_width, inner_height = width - left - right, height - top - bottom
    axes = figure.add_axes(
        (left / width, bottom / height, inner_width / width, inner_height / height)
    )
    return figure, axes


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Renders an SVG element for an HTML page.

    Matplotlib's ids repeat between figures: ids that are referenced become the
    figure's name and a number, others are removed. Coordinates have two decimals.
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
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    prefix = re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}", name)
    ids = {old: f"{prefix}-{i}" for i, old in enumerate(used)}

    def rename(found: re.Match) -> str:
        return f' id="{ids[found[1]]}"' if found[1] in ids else ""

    body = re.sub(r'\sid="([^"]*)"', rename, body)
    body = re.sub(
        r'(href="#|url\(#)([^")]+)', lambda found: found[1] + ids[found[2]], body
    )
    body = re.sub(
        "|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found[0]]})", body
    )
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        'style="stroke-linejoin: round; stroke-linecap: butt; font-family: '
        'DejaVu Sans, Verdana, sans-serif" '
        f'aria-label="{html.escape(label)}">{_shortened(body)}'
    )


def standalone(svg: str, margin: float = 12) -> str:
    """Turns an SVG element of the page into a file.

    The file needs no style sheet and looks the same on light and dark pages: colours
    of `LIGHT` on white, with a margin around the figure.

    Args:
      svg: an `<svg>` element of `to_svg`.
      margin: margin on all sides, in pixels.

    Returns:
      The text of an SVG file, to be encoded as UTF-8.
    """
    tag, body = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)" width="[\d.]+"', tag)
    width, height = (float(side) + 2 * margin for side in box.groups())
    size = f'width="{width:g}" height="{height:g}"'
    tag = tag.replace(
        box[0],
        'xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="{-margin:g} {-margin:g} {width:g} {height:g}" {size}',
    )
    body = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], body)
    # Removes the figure's name from ids; only the page needs it.
    body = re.sub(r'( id="|href="#|url\(#)\w+-', r"\1i", body)
    paper = f'<rect x="{-margin:g}" y="{-margin:g}" {size} fill="{LIGHT["paper"]}"/>'
    return f"{tag}>\n{paper}{body.rstrip()}\n"


def _shortened(body: str) -> str:
    """Shortens the SVG; coordinates get two decimals."""
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href=", "href=")
    # The element itself has the font; texts keep their size and weight.
    body = re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*", _font, body)
    body = re.sub(r" font-family: [^;\"]*;| transform=\"rotate\(-0 [^\"]*\"", "", body)
    # Only within tags: the texts between them stay as they are.
    body = re.sub(
        r"<[^>]*>", lambda tag: re.sub(r"\b\d+\.\d{3,}", _rounded, tag[0]), body
    )
    # Consecutive line commands need no letter.
    return re.sub(
        r"([ML] \S+ \S+)((?:\nL \S+ \S+)+)",
        lambda found: found[1] + found[2].replace("\nL", ""),
        body,
    )


def _font(found: re.Match) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}{weight}"


def _rounded(found: re.Match) -> str:
    """Rounds a coordinate to two decimals."""
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
