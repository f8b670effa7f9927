"""Ranking of the students by calibrated NLL, with their cost."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from edp.report.page.markup import paragraph
from edp.report.page.table import BOLD, MODEL, Column, format_table, html_table
from edp.report.rows import Row, central_value

LEGEND = (
    "Students and ensembles sorted by calibrated NLL. OOD is the AUROC of separating "
    "the test set from an out-of-distribution set, by mutual information if the model "
    "has members or predicts a distribution, else by predictive entropy. Cost is in "
    "forward passes of one plain network. FLOP counts convolutions and matrix "
    "products, with a multiply-add as two; training FLOP of a student include its "
    "teachers' forward passes and the gradients of the perturbation, but not the "
    "teachers' training."
)

# Uncertainty scores in order of preference, with their names in the table.
_SCORES = {"mutual_information": "information", "predictive_entropy": "entropy"}
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_COUNTS = (
    ("inference_flops", "{}FLOP per image", 2),
    ("train_flops", "training {}FLOP", 2),
    ("num_params", "parameters{}", 1),
)


def rank(rows: Iterable[Row], ood: Iterable[Row]) -> list[dict]:
    """Sorts rows by calibrated NLL.

    Args:
      rows: of `results.json`, or over seeds; rows without a calibrated NLL are left
        out.
      ood: of `ood.json`, or over seeds.

    Returns:
      The sorted rows, with `auroc <set>` for each set, `ood_score` (the score used)
      and, for students, `rank` from 1.
    """
    found: dict[str, dict[str, dict]] = {}
    for row in ood:
        if central_value(row, "auroc") is not None:
            scores = found.setdefault(str(row.get("model")), {})
            aurocs = scores.setdefault(str(row.get("score")), {})
            aurocs[f"auroc {row.get('set')}"] = row["auroc"]
    ranked = sorted(
        (row for row in rows if central_value(row, "cnll") is not None),
        key=lambda row: central_value(row, "cnll"),
    )
    result, place = [], 0
    for row in ranked:
        row = dict(row)
        if row.get("kind") == "student":
            place += 1
            row["rank"] = place
        scores = found.get(str(row["model"]), {})
        if score := next((name for name in _SCORES if name in scores), None):
            row |= scores[score] | {"ood_score": _SCORES[score]}
        result.append(row)
    return result


def columns(ranked: Sequence[Row]) -> list[Column]:
    """Returns the columns that have a value in any row of `rank`."""
    keys = dict.fromkeys(key for row in ranked for key in row)
    over_seeds = "gap_closed_of_means" in keys
    sets = [key for key in keys if key.startswith("auroc ")]
    shown = [
        MODEL,
        Column("rank", "rank", "rank", 1, 0),
        Column("cnll", "cNLL", "cNLL", 1, 4, -1),
        Column(
            "gap_closed_of_means" if over_seeds else "gap_closed",
            *("gap closed %", "gap %", 100, 1, 1),
        ),
        Column("dee", "DEE", "DEE", 1, 2, 1),
        *(Column(k, f"OOD {k.partition(' ')[2]} %", k, 100, 1, 1) for k in sets),
        Column("ood_score", "OOD by", "by"),
        Column("inference_cost", "cost", "cost", 1, 2),
    ]
    for key, title, digits in _COUNTS:
        values = [v for row in ranked if (v := central_value(row, key))]
        if values:
            scale, prefix = unit(values)
            prefix = f", {prefix}" if prefix and key == "num_params" else prefix
            title = title.format(prefix)
            shown.append(Column(key, title, title, scale, digits if scale < 1 else 0))
    return [column for column in shown if column.key in keys]


def unit(values: Iterable[float]) -> tuple[float, str]:
    """Returns a scale for large numbers and its prefix: k, M, ...

    The prefix is the largest with which the smallest value is at least 1.
    """
    least, power = min(values), 0
    while least >= 1000 and power < len(_PREFIXES) - 1:
        least, power = least / 1000, power + 1
    return 10.0 ** (-3 * power), _PREFIXES[power]


def ranking_section(rows: Sequence[Row], ood: Sequence[Row]) -> Markup:
    """Returns the ranking in HTML, with a legend."""
    ranked = rank(rows, ood)
    if not any("rank" in row for row in ranked):
        return Markup()
    return html_table(ranked, columns(ranked)) + paragraph(
        f"{LEGEND} {BOLD} Click a heading to sort.", "note"
    )


def format_ranking(rows: Sequence[Row], ood: Sequence[Row]) -> list[str]:
    """Returns the ranking as lines of Markdown; empty without students."""
    ranked = rank(rows, ood)
    if not any("rank" in row for row in ranked):
        return []
    table = format_table(ranked, "markdown", columns=columns(ranked))
    return ["## Ranking", "", table, "", LEGEND, ""]
