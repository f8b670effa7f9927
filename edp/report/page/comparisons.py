"""The effect of perturbations, by kind of student."""

from collections.abc import Sequence

from markupsafe import Markup

from edp.report.findings import Comparison, relation
from edp.report.page.markup import heading, paragraph
from edp.report.page.table import Column, format_table, html_table
from edp.report.rows import Row, number
from edp.report.seeds.number_format import DASH

_COLUMNS = (
    Column("kind", "kind of student", "kind"),
    Column("perturbed", "perturbed", "perturbed"),
    Column("plain", "plain", "plain"),
    Column("difference", "Δ cNLL", "Δ cNLL", 1, 4),
    Column("interval", "95 % interval", "interval"),
    Column("verdict", "the perturbed one is", "verdict"),
)
_TITLE = "With and without a perturbation"
LEGEND = (
    "For each kind of student, the best perturbed one against the best plain one, both "
    "chosen by validation cNLL. Δ cNLL is perturbed minus plain on the test images: "
    "below 0, the perturbation helped. The interval is of a paired bootstrap over the "
    "test images."
)


def comparisons_section(comparisons: Sequence[Comparison]) -> Markup:
    """Returns the table in HTML; nothing without comparisons."""
    if not comparisons:
        return Markup()
    table = html_table(_rows(comparisons), _COLUMNS)
    return heading(_TITLE) + table + paragraph(LEGEND, "note")


def format_comparisons(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns the table as lines of Markdown; empty without comparisons."""
    if not comparisons:
        return []
    table = format_table(_rows(comparisons), "markdown", columns=_COLUMNS)
    return [f"## {_TITLE}", "", table, "", LEGEND, ""]


def _rows(comparisons: Sequence[Comparison]) -> list[Row]:
    rows = []
    for kind, perturbed, plain, found in comparisons:
        ours, theirs = (number(row, "cnll") for row in (perturbed, plain))
        row = {
            "kind": kind,
            "perturbed": perturbed["model"],
            "plain": plain["model"],
            "difference": ours - theirs,
            "interval": DASH,
            "verdict": DASH,
        }
        if found is not None:
            row["interval"] = f"{found.low:+.4f} to {found.high:+.4f}"
            row["verdict"] = relation(found).removesuffix(" than").removesuffix(" from")
        rows.append(row)
    return rows
