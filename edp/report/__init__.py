"""The report of a run, from the files in its work directory alone.

`write_report` may be called on a run that is only partly done, and again when
more of it is: whatever is missing is left out with a plain sentence.
"""

import json
import os
import pathlib
import re

from edp.report.files import read_mapping, read_rows
from edp.report.page.facts import run_facts
from edp.report.page.markup import escape_markdown, render
from edp.report.page.table import LEGEND, format_table, table_section
from edp.report.page.verdicts import cautions, compare_with_plain
from edp.runtime import storage
from edp.runtime.storage import write_text

__all__ = ["compare_with_plain", "format_table", "run_facts", "write_report"]


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `results.md`, the self-contained `report.html` and `figures/*.svg`.

    Reads `results.json` and, where they are there, `config.json`, `run.json`,
    `analysis.json`, `gallery.npz`, `ood.json`, `corruptions.json` and
    `predictions/*.npz`. Each file is written whole or not at all. The figures are
    the page's, in its light colours on white.

    Args:
      workdir: the run's work directory.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if `results.json` is missing or is not a list of rows.
    """
    # Matplotlib and Pillow are for the page only; a table needs neither.
    from edp.report.figures import svg
    from edp.report.page import (
        corruptions,
        diversity,
        gallery,
        ood,
        pareto,
        ranking,
        risk,
        sections,
    )

    workdir = storage.as_path(workdir)
    rows = read_rows(workdir / "results.json")
    config, no_config = read_mapping(workdir / "config.json")
    run, no_run = read_mapping(workdir / "run.json")
    facts = run_facts(rows, config, run)
    findings = [*compare_with_plain(rows), *cautions(rows)]
    name = facts.get("Dataset") or workdir.resolve().name
    title = f"Ensemble distillation on {name}"

    lines = [f"# {escape_markdown(title)}", ""]
    lines += [f"- {escape_markdown(f'{k}: {v}')}" for k, v in facts.items()]
    lines += ["", format_table(rows, "markdown"), "", LEGEND, ""]
    lines += [line for said in findings for line in (escape_markdown(said), "")]
    ood_rows = ranking.read_ood(workdir / "ood.json")
    lines += ranking.format_ranking(rows, ood_rows)
    write_text(workdir / "results.md", "\n".join(lines))

    drawn = {
        "cnll": sections.cnll_section(rows),
        "pareto": pareto.pareto_section(rows),
        "diversity": diversity.diversity_section(workdir / "analysis.json", rows),
        "reliability": sections.reliability_section(workdir / "predictions", rows),
        "risk": risk.risk_section(workdir / "predictions", rows),
        "corruptions": corruptions.corruptions_section(
            workdir / "corruptions.json", rows
        ),
    }
    for section in drawn.values():
        for name, figure in section.figures.items():
            file = re.sub(r"[^\w.-]", "_", name) + ".svg"
            write_text(workdir / "figures" / file, svg.standalone(figure))

    page = render(
        "page.html",
        light=svg.LIGHT,
        title=title,
        findings=findings,
        facts=facts,
        no_run=no_run,
        table=table_section(rows),
        ranking=ranking.ranking_section(rows, ood_rows),
        **{name: section.html for name, section in drawn.items()},
        ood=ood.ood_section(workdir / "ood.json", rows),
        gallery=gallery.gallery_section(workdir / "gallery.npz"),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        no_config=no_config,
    )
    path = workdir / "report.html"
    write_text(path, page)
    return path
