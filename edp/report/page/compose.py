"""Composes the page from its sections."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup

from edp.report.figures import svg
from edp.report.inputs import Inputs
from edp.report.page.corruptions import corruptions_section
from edp.report.page.diversity import diversity_section
from edp.report.page.gallery import gallery_section
from edp.report.page.markup import render
from edp.report.page.ood import ood_section
from edp.report.page.pareto import pareto_section
from edp.report.page.ranking import ranking_section
from edp.report.page.risk import risk_section
from edp.report.page.sections import cnll_section, reliability_section
from edp.report.page.table import table_section


class Page(NamedTuple):
    """A page.

    Attributes:
      html: the page, self-contained.
      figures: SVG files by name.
    """

    html: Markup
    figures: Mapping[str, str]


def compose_page(inputs: Inputs) -> Page:
    """Draws the figures of a run and renders its page."""
    rows, workdir = inputs.rows, inputs.workdir
    predictions = workdir / "predictions"
    drawn = {
        "cnll": cnll_section(rows),
        "pareto": pareto_section(rows),
        "diversity": diversity_section(workdir / "analysis.json", rows),
        "reliability": reliability_section(predictions, rows),
        "risk": risk_section(predictions, rows),
        "corruptions": corruptions_section(workdir / "corruptions.json", rows),
    }
    html = render(
        "page.html",
        light=svg.LIGHT,
        title=inputs.title,
        findings=inputs.findings,
        facts=inputs.facts,
        no_run=inputs.no_run,
        table=table_section(rows),
        ranking=ranking_section(rows, inputs.ood_rows),
        **{name: section.html for name, section in drawn.items()},
        ood=ood_section(workdir / "ood.json", rows),
        gallery=gallery_section(workdir / "gallery.npz"),
        config=json.dumps(inputs.config, indent=2, ensure_ascii=False),
        no_config=inputs.no_config,
    )
    figures = {
        re.sub(r"[^\w.-]", "_", name) + ".svg": svg.standalone(figure)
        for section in drawn.values()
        for name, figure in section.figures.items()
    }
    return Page(html, figures)
