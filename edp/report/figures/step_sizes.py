"""Figure of a quantity against the step size of perturbations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, STYLE, series, to_svg


class StepSizeCurve(NamedTuple):
    """One perturbation.

    Attributes:
      name: label; about 20 characters fit.
      points: (step size, value), ascending.
      series: colour index; None for the neutral colour.
    """

    name: str
    points: Sequence[tuple[float, float]]
    series: int | None


@matplotlib.rc_context(STYLE)
def by_step_size(
    title: str,
    curves: Sequence[StepSizeCurve],
    levels: Mapping[str, float],
    percent: bool,
) -> str:
    """Draws a quantity against the step size of each perturbation.

    Args:
      title: the quantity; also the prefix of the SVG's ids on the page.
      curves: at least one.
      levels: by name, the quantity on clean inputs, drawn as level lines.
      percent: whether to show percentages.

    Returns:
      An `<svg>` element.
    """
    scale = 100 if percent else 1
    labels = [*levels, *(curve.name for curve in curves)]
    heading = f"{title}, %" if percent else title
    figure, axes = labelled_axes(
        labels, heading, "step size η, in 1/255", (220, 260), whole=True
    )
    described, ends = [], []
    for i, (name, value) in enumerate(levels.items()):
        colour = (MUTED, INK)[i % 2]
        axes.axhline(scale * value, color=colour, linewidth=1.2, dashes=(4, 2.5))
        ends.append((scale * value, colour))
        described.append(f"{name} {scale * value:.3g}")
    for curve in curves:
        steps, values = zip(*curve.points, strict=True)
        steps, values = [255 * s for s in steps], [scale * v for v in values]
        colour = MUTED if curve.series is None else series(curve.series)
        axes.plot(steps, values, "-o", color=colour, linewidth=1.6, markersize=4)
        # A curve that ends early is still labelled at the right.
        ends.append((values[-1], colour))
        pairs = zip(steps, values, strict=True)
        described.append(
            f"{curve.name} {', '.join(f'{v:.3g} at {s:.3g}' for s, v in pairs)}"
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    label_ends(axes, labels, *zip(*ends, strict=True))
    return to_svg(
        figure, f"steps-{title}", f"{title} by step size: {'; '.join(described)}"
    )
