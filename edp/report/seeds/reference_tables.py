"""Tables of a summary's models beside other ensembles."""

from collections.abc import Mapping
from typing import Any

from edp.report.page.markup import escape_markdown
from edp.report.page.table import MODEL, Column, markdown_table
from edp.report.rows import NO_GAP, Row
from edp.report.seeds.number_format import DASH, mean_text

_COLUMNS = (
    MODEL,
    Column("accuracy", "acc %", "acc %", 100, 2),
    Column("cnll", "cNLL", "cNLL", 1, 4),
    Column("best_cnll", "cNLL (best pool)", "cNLL", 1, 4),
    Column("dee", "DEE", "DEE", 1, 2),
    Column("dee_best", "DEE (best pool)", "DEE", 1, 2),
    Column("gap_closed", "gap closed (published) %", "gap %", 100, 1),
    Column("gap_closed_best", "gap closed (best pool) %", "gap %", 100, 1),
)
_LEGEND = (
    "Mean ± standard error over seeds. Rows of the reference are {name} DE-m and, at "
    "the end, its own students, distilled from its members. DEE: the "
    "size of the reference's ensemble with the same cNLL; ≥ {largest}: in some seed at "
    "least its whole {largest}. Gap closed: the fraction of the gap from {name} DE-1 "
    "to DE-{size}, from the mean cNLLs; no gap if DE-{size} is not clearly better. "
    "Published: the mean probability, then one temperature. Best pool: pooled in the "
    "way that is best on validation images; this gap has no interval."
)


def sections(references: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Formats a section for each reference of `summarize_runs`, as Markdown lines."""
    lines = []
    for name, reference in references.items():
        shown = escape_markdown(name)
        ensembles, students = (
            [row | {"model": f"{name} {row['model']}"} for row in reference[key]]
            for key in ("ensembles", "students")
        )
        others = [*reference["models"], *students]
        gap = reference.get("gap")
        if gap and gap["interval"][1] >= 0:
            others = [row | {"gap_closed": NO_GAP} for row in others]
        rows = [*ensembles, *others]
        table = [_cells(row, reference["largest"]) for row in rows]
        kept = [
            i for i, c in enumerate(_COLUMNS) if any(line[i] != DASH for line in table)
        ]
        cells = [[line[i] for i in kept] for line in table]
        legend = _LEGEND.format(
            name=shown, largest=reference["largest"], size=reference["size"]
        )
        columns = [_COLUMNS[i] for i in kept]
        lines += ["", f"## Beside {shown}", "", markdown_table(columns, cells)]
        lines += ["", legend]
    return lines


def _cells(row: Row, largest: int) -> list[str]:
    """Formats the cells of a row; a DEE that any seed has at its end gets a ≥."""
    cells = [escape_markdown(row["model"])]
    for column in _COLUMNS[1:]:
        value = row.get(column.key)
        text = NO_GAP
        if value != NO_GAP:
            text = mean_text(value, column.scale or 1, column.digits)
        at_end = column.key.startswith("dee") and isinstance(value, Mapping)
        if at_end and largest in value["by_seed"].values():
            text = f"≥ {text}"
        cells.append(text)
    return cells
