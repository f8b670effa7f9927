"""Summarises finished runs over their seeds, and compares runs of different settings.

    python -m launch.summarize --workdirs=runs/small0,runs/small1,runs/small2 \\
        --out=runs/summary

Runs that differ only in their seeds make one table, `summary.md`, with figures. Runs of
different settings are grouped: `comparison.md` compares the groups, and each group has
its `summary.md` in setting1/, setting2/, ... Trains nothing and reads no dataset.
"""

from collections.abc import Sequence

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
_REFERENCES = flags.DEFINE_multi_string(
    "reference",
    [],
    "NAME=WORKDIR,WORKDIR,...: other ensembles that the students are measured against, "
    "such as larger ones or those of teachers trained with mixup; a run of each seed.",
)


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        from edp.report.seeds import outputs, runs, summary
        from edp.runtime import storage

        directory = storage.as_path(_OUT.value)
        storage.check_writable(directory, "out")
        groups = runs.read_groups(_WORKDIRS.value)
        places = [directory]
        if len(groups) > 1:
            places = [directory / f"setting{i}" for i, _ in enumerate(groups, 1)]
            own = ("comparison.md", "comparison.svg")
            outputs.check_out(directory, "comparison", own)
        for place in places:
            outputs.check_out(place, "summary", outputs.SUMMARY)
        results = [
            summary.summarize_runs(
                group.runs, _baselines(group, groups), _REFERENCES.value
            )
            for group in groups
        ]
        if len(groups) > 1:
            _compare(groups, directory)
    for result, place in zip(results, places, strict=True):
        _write(result, place, is_only=len(groups) == 1)


def _baselines(group, groups: Sequence) -> list[str] | None:
    """Returns the baselines that a group has; all of them if no group has one."""
    if _BASELINE.value is None or len(groups) == 1:
        return _BASELINE.value
    known = [{n for run in g.runs for n in run.student_names} for g in groups]
    missing = set(_BASELINE.value).difference(*known)
    own = {name for run in group.runs for name in run.student_names}
    return [name for name in _BASELINE.value if name in own or name in missing]


def _compare(groups: Sequence, directory) -> None:
    """Prints the settings that differ and the comparison of the groups; writes it."""
    from edp.report.seeds import sweep_results, sweep_tables

    print(f"The runs have {len(groups)} different settings:")
    for i, group in enumerate(groups, 1):
        names = ", ".join(run.name for run in group.runs)
        values = ", ".join(f"{key}={value}" for key, value in group.values.items())
        print(f"  setting{i} ({names}): {values}")
    result = sweep_results.summarize_groups(groups)
    files = sweep_tables.write_sweep(result, directory, "comparison")
    print(f"\n{sweep_tables.format_terminal(result, terminal.width())}")
    for note in result["notes"]:
        print(note)
    print(f"\nComparison: {directory / files[-1]} (with {', '.join(files[:-1])})")


def _write(result, directory, *, is_only: bool) -> None:
    """Writes the summary of one setting; prints its table if it is the only one."""
    from edp.report.seeds import tables

    files = tables.write_summary(result, directory)
    if is_only:
        print(tables.format_terminal(result, terminal.width()))
        for note in result["notes"]:
            print(note)
        print()
    print(f"Summary: {directory / 'summary.md'} (with {', '.join(files[:-1])})")


if __name__ == "__main__":
    app.run(main)
