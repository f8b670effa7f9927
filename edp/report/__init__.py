"""Report of a run, made from the files in its work directory.

`write_report` also works on an unfinished run and may be called again later: it leaves
out what is missing and says so in a sentence.
"""

import os
import pathlib

from edp.report.inputs import Inputs, read_inputs
from edp.report.page.facts import describe_run
from edp.report.page.table import format_table
from edp.report.results_markdown import format_results
from edp.runtime import storage
from edp.runtime.storage import write_text

__all__ = [
    "Inputs",
    "describe_run",
    "format_table",
    "read_inputs",
    "write_inputs",
    "write_report",
]


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `results.md`, `figures/*.svg` and the self-contained `report.html`.

    Reads `results.json` and, if they exist, `predictions/*.npz`, `config.json`,
    `run.json`, `analysis.json`, `gallery.npz`, `ood.json`, `corruptions.json` and the
    `metrics.jsonl` of each network. Each file is written atomically. The figures are
    those of the page, in its light colours on white.

    Args:
      workdir: the run's work directory.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if `results.json` is missing or is not a list of rows.
    """
    return write_inputs(read_inputs(storage.as_path(workdir)))


def write_inputs(inputs: Inputs) -> pathlib.Path:
    """Writes the report of inputs that were read before, as `write_report`."""
    # Imports Matplotlib and Pillow, which the tables do not need.
    from edp.report.page.compose import compose_page

    directory = inputs.workdir
    write_text(directory / "results.md", format_results(inputs))
    page = compose_page(inputs)
    for name, svg in page.figures.items():
        write_text(directory / "figures" / name, svg)
    write_text(directory / "report.html", page.html)
    return directory / "report.html"
