"""Prints the table of results and draws the report of a workdir.

    python -m launch.report --workdir=runs/digits

Needs only the files of the run: no data are read, and `--config` is not needed (and
not read where it is given).
"""

from edp import report
from edp.errors import InputError
from edp.experiment import provenance
from edp.runtime import lock, multihost, storage

from .cli import app, terminal


def write_report(directory: storage.Path) -> None:
    """Writes the report and its figures; of several processes the first does."""
    with lock.held(directory):
        if not multihost.is_first():
            return
        path = report.write_report(directory)
    rows = storage.read_json(directory / "results.json")
    print()
    print(report.format_table(rows, width=terminal.width()))
    print()
    for sentence in report.compare_with_plain(rows):
        print(sentence)
    print(f"\nReport: {path}")


def report_finished(directory: storage.Path) -> None:
    """`write_report` of a run that was evaluated; makes no directory for another.

    Raises:
      InputError: for a workdir without results, or one that cannot be written to.
    """
    storage.check_writable(directory)
    provenance.check_version(directory)
    if not (directory / "results.json").exists():
        raise InputError(
            f"there is no {directory / 'results.json'}; accepted: the workdir of a run "
            "that launch.run or launch.evaluate has finished"
        )
    write_report(directory)


if __name__ == "__main__":
    app.from_files(report_finished)
