"""Results tables for the terminal, in Markdown and in HTML."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from edp.report.page.markup import escape_markdown, paragraph, render, shorten
from edp.report.rows import NO_GAP, Row, number, student_rows
from edp.report.seeds.number_format import DASH

# Least width of a column of text before spare columns are dropped.
_NAME = 12


class Column(NamedTuple):
    """One column of the results table.

    Attributes:
      key: key of the row.
      title: heading.
      short: heading on a terminal.
      scale: factor for numbers; None for a column of text.
      digits: decimals shown.
      better: +1 if higher is better, -1 if lower is, 0 if neither.
      spare: whether the column is dropped on a narrow terminal.
    """

    key: str
    title: str
    short: str
    scale: float | None = None
    digits: int = 0
    better: int = 0
    spare: bool = False

    def text(self, row: Row) -> str:
        """Returns the cell's text, unescaped; a dash if there is no value."""
        value = row.get(self.key)
        if self.scale is None:
            return DASH if value in (None, "") else " ".join(str(value).split())
        if row.get(self.key) == NO_GAP:
            return NO_GAP
        value = number(row, self.key)
        return DASH if value is None else f"{self.scale * value:.{self.digits}f}"


MODEL = Column("model", "model", "model")
"""The name of a row's model."""

GAPS = (
    Column("gap_closed", "gap closed (published) %", "gap %", 100, 1, 1),
    Column(
        *("gap_closed_best", "gap closed (best pool) %", "best gap %"),
        *(100, 1, 1),
        spare=True,
    ),
)
"""The gap closed beside the ensemble as papers pool it, and beside its best pool."""

COLUMNS = (
    MODEL,
    Column("student", "student", "student"),
    Column("perturbation", "perturbation", "perturb."),
    Column("accuracy", "acc %", "acc %", 100, 2, 1),
    Column("nll", "NLL", "NLL", 1, 4, -1),
    Column("cnll", "cNLL", "cNLL", 1, 4, -1),
    Column("validation_cnll", "val. cNLL", "val. cNLL", 1, 4, -1, spare=True),
    Column("ece", "ECE %", "ECE %", 100, 2, -1),
    Column("aurc", "AURC %", "AURC %", 100, 2, -1, spare=True),
    Column("set_coverage", "sets cover %", "cover %", 100, 1, 0, spare=True),
    Column("set_size", "set size", "size", 1, 2, 0, spare=True),
    Column("brier", "Brier", "Brier", 1, 4, -1),
    Column("soft_nll", "soft NLL", "soft NLL", 1, 4, -1, spare=True),
    Column("soft_kl", "soft KL", "soft KL", 1, 4, -1, spare=True),
    Column("soft_tv", "soft TV %", "soft TV %", 100, 2, -1, spare=True),
    Column("dee", "DEE", "DEE", 1, 2, 1),
    *GAPS,
    Column("inference_cost", "cost", "cost", 1, 2, 0),
)

LEGEND = (
    "DE-m is the mean over the ensembles of m of the members. cNLL is the NLL after "
    "temperature scaling on the validation set; val. cNLL is that of the validation "
    "set, by which the best student is chosen. AURC is the area under the "
    "risk-coverage curve. DEE is the deep-ensemble equivalent, the size of the "
    "ensemble with the same cNLL: 0 is worse than one network, and the whole ensemble "
    "is the maximum. Gap closed is the fraction of the cNLL gap between DE-1 and the "
    "whole ensemble; there is no gap if the whole ensemble is not clearly better. "
    "Published: the ensemble is the mean of the members' probabilities. Best pool: it "
    "is pooled as is best on the validation set; this gap has no interval. Sets "
    "are conformal prediction sets. Cost is in forward passes of one plain network. "
    "Soft NLL, KL and TV (total variation) compare with evaluation.soft_labels, if "
    "given."
)

BOLD = "Bold: the best student, unless several have the same digits."


def format_table(
    rows: Sequence[Row],
    style: str = "plain",
    width: int = 100,
    columns: Sequence[Column] | None = None,
) -> str:
    """Formats a table of results as aligned text, rows in the order given.

    Args:
      rows: rows of `results.json`.
      style: 'plain' for a terminal, or 'markdown', where the best student of
        each column is bold if no other has the same digits.
      width: columns of the terminal; to fit, spare columns are dropped, then the
        longest texts are cut in the middle. Markdown is never cut.
      columns: None for those of `COLUMNS` that have values.

    Returns:
      The table's lines, without a newline at the end.

    Raises:
      ValueError: if `style` is another one.
    """
    if style not in ("plain", "markdown"):
        raise ValueError(f"style={style!r}; accepted: 'plain', 'markdown'")
    columns = _shown(rows) if columns is None else columns
    cells = [[column.text(row) for column in columns] for row in rows]
    if style == "plain":
        return plain_table(columns, cells, width)
    best = _best(rows, columns)
    for row, line in zip(rows, cells, strict=True):
        for i, (column, text) in enumerate(zip(columns, line, strict=True)):
            line[i] = escape_markdown(text)
            if row.get("kind") == "student" and text == best.get(column.key):
                line[i] = f"**{line[i]}**"
    return markdown_table(columns, cells)


def plain_table(columns: Sequence[Column], cells: list[list[str]], width: int) -> str:
    """Formats a table for a terminal; cuts the longest texts to the width."""
    heads = [column.short for column in columns]
    widths = [max(map(len, c)) for c in zip(heads, *cells, strict=True)]
    words = [i for i, column in enumerate(columns) if column.scale is None]
    least = [min(w, _NAME) if i in words else w for i, w in enumerate(widths)]
    kept = [i for i, column in enumerate(columns) if not column.spare]
    if len(kept) < len(columns) and sum(least) + 2 * (len(least) - 1) > width:
        cells = [[line[i] for i in kept] for line in cells]
        return plain_table([columns[i] for i in kept], cells, width)
    while sum(widths) + 2 * (len(widths) - 1) > width:
        longest = max(words, key=widths.__getitem__)
        if widths[longest] <= 5:
            break
        widths[longest] -= 1
    lines = [heads, ["─" * w for w in widths], *cells]
    return "\n".join(
        "  ".join(_aligned(columns, line, widths)).rstrip() for line in lines
    )


def markdown_table(columns: Sequence[Column], cells: list[list[str]]) -> str:
    """Formats a table in Markdown; cells must be escaped."""
    heads = [column.title for column in columns]
    widths = [max(3, *map(len, c)) for c in zip(heads, *cells, strict=True)]
    rule = [
        "-" * w if column.scale is None else "-" * (w - 1) + ":"
        for column, w in zip(columns, widths, strict=True)
    ]
    return "\n".join(
        f"| {' | '.join(_aligned(columns, line, widths))} |"
        for line in [heads, rule, *cells]
    )


def _aligned(
    columns: Sequence[Column], line: Sequence[str], widths: Sequence[int]
) -> list[str]:
    """Pads cells to their columns' widths: texts left, numbers right."""
    return [
        shorten(text, w).ljust(w) if column.scale is None else text.rjust(w)
        for column, text, w in zip(columns, line, widths, strict=True)
    ]


def table_section(rows: Sequence[Row]) -> Markup:
    """Returns the results table in HTML, with a legend."""
    return html_table(rows, _shown(rows)) + paragraph(
        f"{LEGEND} {BOLD} Click a heading to sort.", "note"
    )


def html_table(rows: Sequence[Row], columns: Sequence[Column]) -> Markup:
    """Renders a sortable table with the best student of each column bold.

    Args:
      rows: students have `kind` "student".
      columns: the first one is the row's header.
    """
    best = _best(rows, columns)
    empty = (DASH, NO_GAP)
    return render("table.html", rows=rows, columns=columns, best=best, empty=empty)


def _shown(rows: Sequence[Row]) -> list[Column]:
    """Returns the columns to show.

    Leaves out `student` if all students are of one kind, `perturbation` if none is
    known, and empty spare columns.
    """
    kinds = {row.get("student") for row in rows if row.get("kind") == "student"}
    return [
        column
        for column in COLUMNS
        if (column.key != "student" or len(kinds) > 1)
        and (
            not (column.spare or column.key == "perturbation")
            or any(column.text(row) != DASH for row in rows)
        )
    ]


def _best(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, str]:
    """Returns the best text by column over students, if only one of them has it."""
    best = {}
    for column in columns:
        texts = [column.text(row) for row in student_rows(rows)]
        if not column.better:
            continue
        values = {text: float(text) for text in texts if text not in (DASH, NO_GAP)}
        if len(values) > 1:
            top = max(values, key=lambda text: column.better * values[text])
            if texts.count(top) == 1:
                best[column.key] = top
    return best
