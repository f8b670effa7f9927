"""Prints the results table and writes the report of a workdir.

    python -m launch.report --workdir=runs/digits

Reads only the files of the run: no data, and no `--config` (which is ignored).
"""

from edp import report
from edp.errors import InputError
from edp.experiment import provenance
from edp.runtime import lock, multihost, storage

from .cli import app, terminal


def write_report(directory: storage.Path) -> None:
    """Writes the report and its figures in the first process."""
    with lock.held(directory):
        if not multihost.is_first():
            return
        inputs = report.read_inputs(directory)
        path = report.write_inputs(inputs)
    found = inputs.findings
    print()
    print(report.format_table(inputs.rows, width=terminal.width()))
    print()
    for sentence in (found.headline, *found.verdicts, *found.cautions):
        print(sentence)
    print(f"\nReport: {path}")


def report_finished(directory: storage.Path) -> None:
    """Writes the report of an evaluated run; creates no directory otherwise.

    Raises:
      InputError: if the workdir has no results or is not writable.
    """
    storage.check_writable(directory)
    provenance.check_version(directory)
    if not (directory / "results.json").exists():
        raise InputError(
            f"there is no {directory / 'results.json'}; accepted: the workdir of a run "
            "finished by launch.run or launch.evaluate"
        )
    write_report(directory)


if __name__ == "__main__":
    app.from_files(report_finished)
