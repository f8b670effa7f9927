"""Tables of the comparisons of a summary's students."""

from collections.abc import Mapping, Sequence
from typing import Any

from edp.report.page.markup import escape_markdown
from edp.report.page.table import MODEL, Column, markdown_table
from edp.report.rows import Row
from edp.report.seeds.number_format import mean_text, p_text

_LEGEND = (
    "The row's student minus the baseline: below 0 is better in cNLL, above 0 in "
    "accuracy. ± and p (two-sided paired t-test) are over the seeds ({seeds}) and "
    "estimate the variation between seeds on these test images; with few seeds p is "
    "imprecise, and it is not corrected for multiple comparisons. Brackets are 95 % "
    "percentile intervals of a paired bootstrap over the test images (10,000 resamples "
    "of the differences, averaged over seeds): they estimate the variation between "
    "test sets for these networks. Neither includes both sources."
)
_LEGEND_OF_CORRUPTED = (
    "In the mean over all corruptions and severities, of the images of the tables "
    "above; otherwise as the comparisons on clean images."
)


def sections(summary: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the comparisons on test images."""
    rows = summary["comparisons"]
    if not rows:
        return []
    lines = ["", "## Comparisons of students"]
    for baseline in dict.fromkeys(row["baseline"] for row in rows):
        lines += ["", f"### Against {escape_markdown(baseline)}", ""]
        best = summary.get("best_plain", {})
        if best.get("model") == baseline:
            cnll = mean_text(best["validation_cnll"], 1, 4)
            lines += [
                f"{escape_markdown(baseline)} is the best plain student by mean cNLL "
                f"on the validation images ({cnll}).",
                "",
            ]
        lines += [_differences([row for row in rows if row["baseline"] == baseline])]
    counts = [len(row["seeds"]) for row in rows]
    least, most = min(counts), max(counts)
    seeds = f"{most}" if least == most else f"{least} to {most}"
    return [*lines, "", _LEGEND.format(seeds=seeds)]


def corrupted_sections(summary: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the comparisons on corrupted images."""
    lines = []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in summary["corrupted_comparisons"]:
        groups.setdefault((row["corruption"], row["baseline"]), []).append(row)
    for (corruption, baseline), rows in groups.items():
        folder = corruption.removesuffix("mean").removesuffix("/")
        where = f", {folder}" if folder else ""
        title = escape_markdown(f"Against {baseline}, corrupted{where}")
        lines += ["", f"### {title}", "", _differences(rows)]
    return [*lines, "", _LEGEND_OF_CORRUPTED] if lines else []


def _differences(rows: Sequence[Row]) -> str:
    columns = [MODEL]
    for title in ("cNLL", "acc %"):
        columns += [
            Column("", heading, heading, 1)
            for heading in (f"Δ {title}", "p", "over images")
        ]
    cells = []
    for row in rows:
        line = [escape_markdown(row["model"])]
        for metric, scale, digits in (("cnll", 1, 4), ("accuracy", 100, 2)):
            found = row[metric]
            low, high = (f"{scale * end:+.{digits}f}" for end in found["interval"])
            p = escape_markdown(p_text(found.get("p")))
            line += [mean_text(found, scale, digits, "+"), p, f"[{low}, {high}]"]
        cells.append(line)
    return markdown_table(columns, cells)
