"""Section on out-of-distribution detection."""

import pathlib
from collections.abc import Sequence

from edp.report.files import read_evaluated
from edp.report.page.markup import Section, figure, heading, paragraph, shorten
from edp.report.page.table import BOLD, MODEL, Column, html_table
from edp.report.rows import Row, number, student_names

_TITLES = {
    "max_probability": "max. probability",
    "predictive_entropy": "predictive entropy",
    "mutual_information": "mutual information",
    "pairwise_kl": "pairwise KL",
}


def ood_section(path: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Returns a table for each set of `ood.json`: AUROC of each score and model."""
    entries, protocol, why = read_evaluated(path)
    if why:
        return Section(left_out=f"OOD detection: {why}")
    students = student_names(rows)
    sets: dict[str, dict[str, dict]] = {}
    for entry in entries:
        if number(entry, "auroc") is None:
            continue
        model, kind = str(entry.get("model")), str(entry.get("score"))
        models = sets.setdefault(str(entry.get("set")), {})
        named = {"model": model, "kind": "student" if model in students else ""}
        models.setdefault(model, {"fields": named, "auroc": {}})
        models[model]["auroc"][kind] = entry["auroc"]
    if not sets:
        return Section()
    tables = []
    for name, models in sets.items():
        kinds = dict.fromkeys(kind for m in models.values() for kind in m["auroc"])
        # The prefix keeps scores apart from other fields.
        columns = [MODEL] + [
            Column(f"auroc {kind}", _title(kind), kind, 100, 2, 1) for kind in kinds
        ]
        shown = [
            m["fields"] | {f"auroc {kind}": v for kind, v in m["auroc"].items()}
            for m in models.values()
        ]
        tables.append(heading(shorten(name, 60)) + html_table(shown, columns))
    html = figure(
        "AUROC in % of each uncertainty score: how often a test image is less "
        "uncertain than an image of the other set; 50 is chance. Mutual information "
        "and pairwise KL measure the disagreement between members; a network without "
        f"members has neither. {BOLD}",
        *tables,
        paragraph(protocol, "note"),
    )
    return Section(html)


def _title(kind: str) -> str:
    return shorten(_TITLES.get(kind, kind.replace("_", " ")), 32)
