"""The effect of perturbations, by kind of student."""

import pathlib
from collections.abc import Sequence

from markupsafe import Markup

from edp.report.files import read_optional_mapping
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
_OTHERS = Column("others", "they also differ in", "also")
_TITLE = "With and without a perturbation"
LEGEND = (
    "For each kind of student, the best perturbed one against the best plain one, both "
    "chosen by validation cNLL. Δ cNLL is perturbed minus plain on the test images: "
    "below 0, the perturbed one is better. The interval is of a paired bootstrap over "
    "the test images."
)
_LEGEND_OF_OTHERS = (
    " Where the two also differ in other settings that both read, the difference is "
    "not that of the perturbation alone."
)


def comparisons_section(
    comparisons: Sequence[Comparison], workdir: pathlib.Path
) -> Markup:
    """Returns the table in HTML; nothing without comparisons.

    Args:
      comparisons: of `findings.judge`.
      workdir: of the run, with the settings of its students.
    """
    if not comparisons:
        return Markup()
    rows, columns, legend = _table(comparisons, workdir)
    return heading(_TITLE) + html_table(rows, columns) + paragraph(legend, "note")


def format_comparisons(
    comparisons: Sequence[Comparison], workdir: pathlib.Path
) -> list[str]:
    """Returns the table as lines of Markdown; empty without comparisons."""
    if not comparisons:
        return []
    rows, columns, legend = _table(comparisons, workdir)
    table = format_table(rows, "markdown", columns=columns)
    return [f"## {_TITLE}", "", table, "", legend, ""]


def _table(
    comparisons: Sequence[Comparison], workdir: pathlib.Path
) -> tuple[list[Row], list[Column], str]:
    """Returns the rows, the columns and the legend."""
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
            "others": ", ".join(_other_settings(workdir, perturbed, plain)),
        }
        if found is not None:
            row["interval"] = f"{found.low:+.4f} to {found.high:+.4f}"
            row["verdict"] = relation(found).removesuffix(" than").removesuffix(" from")
        rows.append(row)
    if any(row["others"] for row in rows):
        return rows, [*_COLUMNS, _OTHERS], LEGEND + _LEGEND_OF_OTHERS
    return rows, [*_COLUMNS], LEGEND


def _other_settings(workdir: pathlib.Path, perturbed: Row, plain: Row) -> list[str]:
    """Returns the settings, besides those of the perturbation, that differ.

    `settings.json` of a student has the settings that it reads: what the perturbed
    one alone reads is its perturbation's.
    """
    ours, theirs = (
        _settings(workdir / "students" / pathlib.PurePath(str(row["model"])).name)
        for row in (perturbed, plain)
    )
    if not ours or not theirs:
        return []
    missing = object()
    return [
        key
        for key in sorted(theirs)
        if key != "perturbation" and ours.get(key, missing) != theirs[key]
    ]


def _settings(stage: pathlib.Path) -> dict:
    """Returns the settings of a student, of `distill`; {} if they are unknown."""
    found = read_optional_mapping(stage / "settings.json")[0].get("distill")
    return found if isinstance(found, dict) else {}
