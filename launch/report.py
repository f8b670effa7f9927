"""Prints the table of results and draws the report of a workdir."""

from edp import lock, processes, report, workdir
from edp.experiment import Experiment

from . import app, terminal


def write_report(experiment: Experiment) -> None:
    """Writes the report and its figures; of several processes the first does."""
    with lock.held(experiment.workdir):
        if not processes.is_first():
            return
        path = report.write_report(experiment.workdir)
    rows = workdir.read_json(experiment.workdir / "results.json")
    print()
    print(report.format_table(rows, width=terminal.width()))
    print()
    for sentence in report.compare_with_plain(rows):
        print(sentence)
    print(f"\nReport: {path}")


if __name__ == "__main__":
    app.main(write_report)
