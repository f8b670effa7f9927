"""Table of the ensemble at its best, beside the published basis."""

from collections.abc import Sequence

from markupsafe import Markup

from edp.report.page.markup import figure, heading
from edp.report.page.table import GAPS, MODEL, Column, html_table
from edp.report.rows import Row, number

_COLUMNS = (
    MODEL,
    Column("cnll", "cNLL (published)", "", 1, 4, -1),
    Column("best_cnll", "cNLL (best pool)", "", 1, 4, -1),
    Column("best_pool", "pool", ""),
    Column("dee", "DEE (published)", "", 1, 2, 1),
    Column("dee_best", "DEE (best pool)", "", 1, 2, 1),
    *GAPS,
)


def best_pool_table(rows: Sequence[Row]) -> Markup:
    """Returns the scores on both bases in HTML; nothing without `best_cnll`."""
    if not any(number(row, "best_cnll") is not None for row in rows):
        return Markup()
    return heading("Beside the ensemble at its best") + figure(
        "Published: the members' probabilities are averaged, then one temperature is "
        "fitted, as in the papers. Best pool: of the arithmetic mean, the geometric "
        "mean, and members with a temperature each, that with the lowest NLL on the "
        "validation images. Overconfident members gain by the latter two, so a student "
        "closes less of that gap. It has no interval over test images, so a "
        "small gap may be chance.",
        html_table(rows, _COLUMNS),
    )
