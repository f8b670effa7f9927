"""Section on out-of-distribution detection."""

import pathlib
from collections.abc import Sequence

from markupsafe import Markup

from edp.report.files import read_evaluated
from edp.report.page.markup import absent, figure, heading, paragraph, shorten
from edp.report.page.table import Column, html_table
from edp.report.rows import Row, number, series_by_student

_TITLES = {
    "max_probability": "max. probability",
    "predictive_entropy": "predictive entropy",
    "mutual_information": "mutual information",
    "pairwise_kl": "pairwise KL",
}


def ood_section(path: pathlib.Path, rows: Sequence[Row]) -> Markup:
    """Returns a table for each set of `ood.json`: AUROC of each score and model."""
    entries, protocol, why = read_evaluated(path)
    if why:
        return absent(f"OOD detection is left out: {why}.")
    students = series_by_student(rows)
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
        return paragraph("No OOD set was given.", "note")
    tables = []
    for name, models in sets.items():
        kinds = dict.fromkeys(kind for m in models.values() for kind in m["auroc"])
        # The prefix keeps scores apart from other fields.
        columns = [Column("model", "model", "model")] + [
            Column(f"auroc {kind}", _title(kind), kind, 100, 2, 1) for kind in kinds
        ]
        shown = [
            m["fields"] | {f"auroc {kind}": v for kind, v in m["auroc"].items()}
            for m in models.values()
        ]
        tables.append(heading(shorten(name, 60)) + html_table(shown, columns))
    return figure(
        "AUROC in % of each uncertainty score: how often a test image is less "
        "uncertain than an image of the other set; 50 is chance. Mutual information "
        "and pairwise KL measure the disagreement between members; a network without "
        "members has neither. Bold: the best student.",
        *tables,
        paragraph(protocol, "note"),
    )


def _title(kind: str) -> str:
    return shorten(_TITLES.get(kind, kind.replace("_", " ")), 32)
