"""Figure of curves that are labelled at their right end."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, STYLE, to_svg

DASHES = (0, (4, 2.5))


class Line(NamedTuple):
    """One model's curve.

    Attributes:
      name: label; about 20 characters fit.
      points: (x, y), ascending in x.
      colour: line colour.
      dashed: whether the line is dashed.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool


@matplotlib.rc_context(STYLE)
def line_figure(
    title: str, xlabel: str, lines: Sequence[Line], *, markers: bool = True
) -> str:
    """Draws a quantity against whole numbers such as epochs.

    Args:
      title: the quantity; with the label of the x axis also the prefix of the SVG's
        ids on the page.
      xlabel: what the numbers are.
      lines: at least one; those in `INK` are heavy.
      markers: whether points have dots.

    Returns:
      An `<svg>` element.
    """
    labels = [f"{line.points[-1][1]:.3g} {line.name}" for line in lines]
    drawing, axes = labelled_axes(labels, title, xlabel, (200, 280), whole=True)
    for line in lines:
        axes.plot(
            *zip(*line.points, strict=True), marker="o" if markers else "",
            markersize=3.5, color=line.colour,
            linestyle=DASHES if line.dashed else "-",
            linewidth=2.2 if line.colour == INK else 1.6,
        )  # fmt: skip
    xs = [x for line in lines for x, _ in line.points]
    pad = 0.04 * ((max(xs) - min(xs)) or 1)
    axes.set_xlim(min(xs) - pad, max(xs) + pad)
    ends = [line.points[-1][1] for line in lines]
    label_ends(axes, labels, ends, [line.colour for line in lines])
    described = (
        f"{line.name} {', '.join(f'{v:.3g} at {x:g}' for x, v in line.points)}"
        for line in lines
    )
    name = f"{xlabel}-{title}"
    return to_svg(drawing, name, f"{title} by {xlabel}: {'; '.join(described)}")
