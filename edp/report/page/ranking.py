"""The students in the order of their calibrated NLL, beside what they cost."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from edp.report.page.markup import paragraph
from edp.report.page.table import Column, format_table, html_table
from edp.report.rows import Row, middle

LEGEND = (
    "Students by their calibrated NLL, with the ensembles among them. OOD is the AUROC "
    "of telling the test set from a set that no network saw, by what the model knows "
    "of its own ignorance: the mutual information, where it has members or tells a "
    "distribution, and else the entropy of its prediction. Cost is in passes of one "
    "plain network. FLOP are those of convolutions and matrix products, an addition "
    "and a multiplication being two; a student's training has its teachers' passes and "
    "the perturbation's gradients in it, and not the teachers' training."
)

# Of uncertainty, the first that a model has, and what it is called here.
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
      rows: of `results.json`, or over several seeds; those without one are left out.
      ood: of `ood.json`, or over several seeds.

    Returns:
      The rows in order, each with `auroc <set>` for each set and `ood_score`, the
      score that they are of; and those of students with `rank`, from 1.
    """
    found: dict[str, dict[str, dict]] = {}
    for row in ood:
        if middle(row, "auroc") is not None:
            scores = found.setdefault(str(row.get("model")), {})
            aurocs = scores.setdefault(str(row.get("score")), {})
            aurocs[f"auroc {row.get('set')}"] = row["auroc"]
    ranked = sorted(
        (row for row in rows if middle(row, "cnll") is not None),
        key=lambda row: middle(row, "cnll"),
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
    """The columns of what `rank` returns that any of its rows has a value in."""
    keys = dict.fromkeys(key for row in ranked for key in row)
    over_seeds = "gap_closed_of_means" in keys
    sets = [key for key in keys if key.startswith("auroc ")]
    shown = [
        Column("model", "model", "model"),
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
        values = [v for row in ranked if (v := middle(row, key))]
        if values:
            scale, prefix = unit(values)
            prefix = f", {prefix}" if prefix and key == "num_params" else prefix
            title = title.format(prefix)
            shown.append(Column(key, title, title, scale, digits if scale < 1 else 0))
    return [column for column in shown if column.key in keys]


def unit(values: Iterable[float]) -> tuple[float, str]:
    """What to multiply large numbers by, and the prefix that this is: k, M, ...

    The largest prefix with which the least of them is 1 or more.
    """
    least, power = min(values), 0
    while least >= 1000 and power < len(_PREFIXES) - 1:
        least, power = least / 1000, power + 1
    return 10.0 ** (-3 * power), _PREFIXES[power]


def ranking_section(rows: Sequence[Row], ood: Sequence[Row]) -> Markup:
    """The table in HTML, with a legend; nothing without students to rank."""
    ranked = rank(rows, ood)
    if not any("rank" in row for row in ranked):
        return paragraph("There is no student with a calibrated NLL to rank.", "note")
    return html_table(ranked, columns(ranked)) + paragraph(
        f"{LEGEND} Bold: the best student. Click a heading to sort.", "note"
    )


def format_ranking(rows: Sequence[Row], ood: Sequence[Row]) -> list[str]:
    """The section in Markdown, as lines; none without students to rank."""
    ranked = rank(rows, ood)
    if not any("rank" in row for row in ranked):
        return []
    table = format_table(ranked, "markdown", columns=columns(ranked))
    return ["## Ranking", "", table, "", LEGEND, ""]
