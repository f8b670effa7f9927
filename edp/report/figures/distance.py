"""Figure of the teachers' disagreement against the distance to the data."""

from collections.abc import Sequence

import matplotlib

from edp.report.figures.axes import label_ends, labelled_axes
from edp.report.figures.svg import INK, MUTED, NUM_SERIES, PAPER, STYLE, series, to_svg
from edp.report.page.markup import shorten
from edp.report.rows import CLEAN_INPUTS, Row, central_value

_KEYS = ("distance", "pairwise_kl", "error")


@matplotlib.rc_context(STYLE)
def by_distance(diversity: Sequence[Row]) -> str | None:
    """Draws pairwise KL against the distance to the nearest training image.

    Each perturbation is a line over its step sizes. Dots are hollow where the members
    are wrong more often than on test inputs: there the effect is lost, as they
    disagree about inputs that no longer show their label.

    Args:
      diversity: rows of `analysis.json`, or over seeds. Those without a distance are
        left out.

    Returns:
      An `<svg>` element; None without perturbed inputs or without test inputs.
    """
    found = [
        (row, *values)
        for row in diversity
        if None not in (values := [central_value(row, key) for key in _KEYS])
    ]
    levels = {
        r["inputs"]: (kl, e) for r, _, kl, e in found if r["inputs"] in CLEAN_INPUTS
    }
    curves: dict[str, list[tuple[float, float, bool]]] = {}
    for row, distance, kl, error in found:
        name = str(row["inputs"]).partition("@")[0]
        if name not in CLEAN_INPUTS and "test" in levels:
            is_lost = error > levels["test"][1]
            curves.setdefault(name, []).append((distance, kl, is_lost))
    if not curves:
        return None
    labels = [
        *(CLEAN_INPUTS[name] for name in levels),
        *(shorten(n, 26) for n in curves),
    ]
    figure, axes = labelled_axes(
        labels,
        "pairwise KL of the teachers",
        "distance to the nearest training image (1: of another image)",
        (330, 300),
    )
    ends, described = [], []
    for name, (kl, _) in levels.items():
        colour = INK if name == "test" else MUTED
        axes.axhline(kl, color=colour, linewidth=1.2, dashes=(4, 2.5))
        ends.append((kl, colour))
        described.append(f"{CLEAN_INPUTS[name]} {kl:.3g}")
    for i, (name, points) in enumerate(curves.items()):
        points.sort()
        colour = series(i) if i < NUM_SERIES else MUTED
        distances, kls, _ = zip(*points, strict=True)
        axes.plot(distances, kls, color=colour, linewidth=1.6)
        for distance, kl, is_lost in points:
            axes.plot(
                [distance], [kl], "o", color=colour, markersize=5, zorder=4,
                markerfacecolor=PAPER if is_lost else colour, clip_on=False,
            )  # fmt: skip
        ends.append((kls[-1], colour))
        texts = (
            f"{kl:.3g} at {distance:.3g}{', lost' * is_lost}"
            for distance, kl, is_lost in points
        )
        described.append(f"{name} {', '.join(texts)}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    label_ends(axes, labels, *zip(*ends, strict=True))
    return to_svg(figure, "d", f"Pairwise KL by distance: {'; '.join(described)}")
