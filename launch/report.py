"""Prints the table of results and draws the report of a workdir."""

import shutil

from edp import lock, processes, report, workdir
from edp.experiment import Experiment

from . import app


def write_report(experiment: Experiment) -> None:
    """Writes the report and its figures; of several processes the first does."""
    with lock.held(experiment.workdir):
        if not processes.is_first():
            return
        path = report.write_report(experiment.workdir)
    rows = workdir.read_json(experiment.workdir / "results.json")
    print()
    width = shutil.get_terminal_size(fallback=(120, 24)).columns
    print(report.format_table(rows, width=max(width, 80)))
    print()
    for sentence in report.compare_with_plain(rows):
        print(sentence)
    print(f"\nReport: {path}")


if __name__ == "__main__":
    app.main(write_report)
