"""Summarises finished runs of one configuration that differ in their seeds.

    python -m launch.summarize --workdirs=runs/small0,runs/small1,runs/small2 \\
        --out=runs/summary

Trains nothing and reads no data set. Writes `summary.json`, `summary.md` and figures.
"""

import os
import shutil
import sys

from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed on a device

_WORKDIRS = flags.DEFINE_list("workdirs", [], "Workdirs of finished runs.")
_OUT = flags.DEFINE_string("out", "runs/summary", "Directory to write to.")
_BASELINE = flags.DEFINE_list(
    "baseline",
    None,
    "Students that the others are compared with, beside the best plain one; "
    "single_none where there is one, if not given.",
)


def main(argv: list[str]) -> None:
    from edp import paths, runs, summary, workdir
    from edp.errors import InputError
    from edp.report import seeds

    try:
        directory = paths.as_path(_OUT.value)
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}; flags begin with --")
        workdir.check_writable(directory, "out")
        found = runs.read_runs(_WORKDIRS.value)
        result = summary.summarize(found, _BASELINE.value)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    files = seeds.write_summary(result, directory)
    width = shutil.get_terminal_size(fallback=(120, 24)).columns
    print(seeds.format_terminal(result, max(width, 80)))
    for note in result["notes"]:
        print(note)
    print(f"\nSummary: {directory / 'summary.md'} (beside it {', '.join(files[:-1])})")


if __name__ == "__main__":
    app.run(main)
