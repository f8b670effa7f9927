"""The tables and sentences of a run in Markdown."""

from edp.report.inputs import Inputs
from edp.report.page.markup import escape_markdown
from edp.report.page.ranking import format_ranking
from edp.report.page.table import LEGEND, format_table


def format_results(inputs: Inputs) -> str:
    """Returns the text of `results.md`."""
    lines = [f"# {escape_markdown(inputs.title)}", ""]
    lines += [f"- {escape_markdown(f'{k}: {v}')}" for k, v in inputs.facts.items()]
    lines += ["", format_table(inputs.rows, "markdown"), "", LEGEND, ""]
    for finding in inputs.findings:
        lines += [escape_markdown(finding), ""]
    return "\n".join([*lines, *format_ranking(inputs.rows, inputs.ood_rows)])
