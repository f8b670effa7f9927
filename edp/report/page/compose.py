"""Composes the page from its sections."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from markupsafe import Markup

from edp.report.figures import svg
from edp.report.inputs import Inputs
from edp.report.page.best_pool import best_pool_table
from edp.report.page.comparisons import comparisons_section
from edp.report.page.corruptions import corruptions_section
from edp.report.page.diversity import diversity_section
from edp.report.page.gallery import gallery_section
from edp.report.page.markup import Section, render
from edp.report.page.measures import measures_section
from edp.report.page.ood import ood_section
from edp.report.page.pareto import pareto_section
from edp.report.page.ranking import ranking_section
from edp.report.page.risk import risk_section
from edp.report.page.sections import cnll_section, reliability_section
from edp.report.page.table import table_section
from edp.report.page.training import training_section

_AT_THE_END = ("Software", "Hardware")


class Page(NamedTuple):
    """A page.

    Attributes:
      html: the page, self-contained.
      figures: SVG files by name.
    """

    html: Markup
    figures: Mapping[str, str]


class Titled(NamedTuple):
    """A section with its headings.

    Attributes:
      id: the anchor.
      link: text of its link in the navigation.
      title: its heading.
      section: its content.
    """

    id: str
    link: str
    title: str
    section: Section


def compose_page(inputs: Inputs) -> Page:
    """Draws the figures of a run and renders its page, without empty sections."""
    cnll = cnll_section(inputs.rows, inputs.evidence)
    sections = _sections(inputs)
    all_sections = [cnll, *(titled.section for titled in sections)]
    left_out = [section.left_out for section in all_sections if section.left_out]
    for what, why in (
        ("intervals and validation scores", "; ".join(inputs.evidence.missing)),
        ("software and hardware", inputs.no_run),
        ("the configuration", inputs.no_config),
    ):
        left_out += [f"{what}: {why}"] if why else []
    facts = inputs.facts
    html = render(
        "page.html",
        light=svg.LIGHT,
        title=inputs.title,
        findings=inputs.findings,
        facts={k: v for k, v in facts.items() if k not in _AT_THE_END},
        setup={k: v for k, v in facts.items() if k in _AT_THE_END},
        cnll=cnll.html,
        sections=[titled for titled in sections if titled.section.html],
        left_out=left_out,
        config=json.dumps(inputs.config, indent=2, ensure_ascii=False),
        no_config=inputs.no_config,
    )
    figures = {
        re.sub(r"[^\w.-]", "_", name) + ".svg": svg.standalone(figure)
        for section in all_sections
        for name, figure in section.figures.items()
    }
    return Page(html, figures)


def _sections(inputs: Inputs) -> list[Titled]:
    """Returns the sections below the first screen; some may be empty."""
    rows, workdir = inputs.rows, inputs.workdir
    predictions = workdir / "predictions"
    results = table_section(rows) + best_pool_table(rows)
    results += comparisons_section(inputs.findings.comparisons, workdir)
    pareto = pareto_section(rows)
    cost = pareto._replace(html=pareto.html + ranking_section(rows, inputs.ood_rows))
    found = [
        ("results", "Results", "Results on the test set", Section(results)),
        ("cost", "Cost", "Quality against cost", cost),
        ("training", "Training", "Training", training_section(workdir, rows)),
        (
            *("diversity", "Disagreement", "Where the teachers disagree"),
            diversity_section(workdir / "analysis.json", rows),
        ),
        (
            *("reliability", "Reliability", "Reliability"),
            reliability_section(predictions, rows),
        ),
        ("risk", "Coverage", "Error against coverage", risk_section(predictions, rows)),
        (
            *("measures", "Measures", "Further measures"),
            measures_section(workdir, rows),
        ),
        (
            *("ood", "Out of distribution", "Out of distribution"),
            ood_section(workdir / "ood.json", rows),
        ),
        (
            *("corruptions", "Corruptions", "Common corruptions"),
            corruptions_section(workdir / "corruptions.json", rows),
        ),
        (
            *("gallery", "Gallery", "Perturbed inputs"),
            gallery_section(workdir / "gallery.npz"),
        ),
    ]
    return [Titled(*section) for section in found]
