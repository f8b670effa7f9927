"""Summarises finished runs of one configuration that differ in their seeds.

    python -m launch.summarize --workdirs=runs/small0,runs/small1,runs/small2 \\
        --out=runs/summary

Trains nothing and reads no dataset. Writes `summary.json`, `summary.md` and figures.
"""

from absl import app, flags

from .cli import arguments, terminal

_WORKDIRS = flags.DEFINE_list("workdirs", [], "Workdirs of finished runs.")
_OUT = flags.DEFINE_string("out", "runs/summary", "Directory to write to.")
_BASELINE = flags.DEFINE_list(
    "baseline",
    None,
    "Students that the others are compared with, in addition to the best plain one; "
    "default: single_none, if it exists.",
)


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        from edp.report.seeds import runs, summary, tables
        from edp.runtime import storage

        directory = storage.as_path(_OUT.value)
        storage.check_writable(directory, "out")
        found = runs.read_runs(_WORKDIRS.value)
        result = summary.summarize_runs(found, _BASELINE.value)
    files = tables.write_summary(result, directory)
    print(tables.format_terminal(result, terminal.width()))
    for note in result["notes"]:
        print(note)
    print(f"\nSummary: {directory / 'summary.md'} (with {', '.join(files[:-1])})")


if __name__ == "__main__":
    app.run(main)
