"""The tables and sentences of a run in Markdown."""

from edp.report.inputs import Inputs
from edp.report.page.comparisons import format_comparisons
from edp.report.page.markup import escape_markdown
from edp.report.page.ranking import format_ranking
from edp.report.page.table import LEGEND, format_table


def format_results(inputs: Inputs) -> str:
    """Returns the text of `results.md`."""
    found = inputs.findings
    lines = [f"# {escape_markdown(inputs.title)}", ""]
    for text in (found.headline, *found.verdicts, " ".join(found.cautions)):
        lines += [escape_markdown(text), ""] if text else []
    lines += [f"- {escape_markdown(f'{k}: {v}')}" for k, v in inputs.facts.items()]
    lines += ["", format_table(inputs.rows, "markdown"), "", LEGEND, ""]
    lines += format_comparisons(found.comparisons, inputs.workdir)
    return "\n".join([*lines, *format_ranking(inputs.rows, inputs.ood_rows)])
