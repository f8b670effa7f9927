"""Runs a configuration under several seeds and settings, and summarises the runs.

    python -m launch.sweep --config=configs/digits.py --workdir=runs/sweep \\
        --seeds=0:3 --grid=distill.step_size=0.002,0.004

Each run is a separate process. Finished runs are skipped, so the same command resumes
an interrupted sweep. Settings that do not change the teachers share them.
"""

import os
import pathlib
import sys

from absl import flags

_ENVIRONMENT = dict(os.environ)  # environment of the runs
os.environ["JAX_PLATFORMS"] = "cpu"  # leaves the devices to the runs

from .cli import app, exit_codes, subprocesses, terminal  # noqa: E402

_SEEDS = flags.DEFINE_string("seeds", "0:3", "START:END, or seeds separated by commas.")
_GRID = flags.DEFINE_multi_string(
    "grid", [], "KEY=VALUE,VALUE,...; repeat it for all combinations of several keys."
)
_OWN = ("seeds", "grid", "workdir")
_ENDING = (exit_codes.EXIT_BAD_INPUT, exit_codes.EXIT_INTERRUPTED)


def sweep(config, directory: pathlib.Path) -> int:
    """Does the unfinished runs, writes the tables of all; returns an exit code."""
    from edp.experiment import sweep
    from edp.report.seeds import outputs, sweep_results, sweep_tables
    from edp.runtime import storage

    grid = sweep.parse_grid(_GRID.value)
    points = sweep.points(config, sweep.parse_seeds(_SEEDS.value), grid)
    sweep.check_paths(p for p in points if not sweep_results.is_done(directory, p))
    storage.check_writable(directory)
    outputs.check_out(directory, "sweep", ("sweep.md", "sweep.svg"), "workdir")
    runner, failed = subprocesses.Children(_ENVIRONMENT), 0
    for i, point in enumerate(points, 1):
        is_done = sweep_results.is_done(directory, point)
        where = f"[{i}/{len(points)}] {directory / point.directory}"
        print(f"{where}: complete" if is_done else where, flush=True)
        code = 0 if is_done else _run(runner, directory, point)
        if runner.stopped or code in _ENDING:
            if code == exit_codes.EXIT_BAD_INPUT:  # the run printed the reason
                return code
            print(
                f"interrupted: {i - 1} of {len(points)} runs are done; run the "
                "command again to go on",
                file=sys.stderr,
            )
            return exit_codes.EXIT_INTERRUPTED
        if code:
            print(f"failed: {where} (exit code {code})", file=sys.stderr)
            failed += 1
    if failed == len(points):
        return exit_codes.EXIT_FAILURE
    result = sweep_results.summarize_sweep(directory, points)
    files = sweep_tables.write_sweep(result, directory)
    print(f"\n{sweep_tables.format_terminal(result, terminal.width())}\n")
    print("\n".join(result["notes"]))
    print(f"Sweep: {directory / 'sweep.md'} (with {', '.join(files[:-1])})")
    return exit_codes.EXIT_FAILURE if failed else 0


def _run(runner: subprocesses.Children, directory: pathlib.Path, point) -> int:
    """Trains the point's teachers, if they are missing, and does its run."""
    from edp.report.seeds import sweep_results
    from edp.runtime.stage import read_record

    own = [
        *subprocesses.passed_on(sys.argv[1:], _OWN),
        *point.setting.flags,
        f"--config.seed={point.seed}",
    ]
    if point.teachers is not None:
        teachers = directory / point.teachers
        if read_record(teachers / "teachers") is None:
            code = runner.run(
                f"{__package__}.train_teachers", [*own, f"--workdir={teachers}"]
            )
            if code or runner.stopped:
                return code
        own.append(f"--config.teachers_workdir={teachers}")
    run = directory / point.directory
    code = runner.run(f"{__package__}.run", [*own, f"--workdir={run}"])
    if code == 0:
        sweep_results.mark_done(directory, point)
    return code


if __name__ == "__main__":
    app.plan(sweep)
