"""Tests of the sweep's command: refusals, interruptions and failing runs."""

import json
import re
import signal
import time

import pytest
from launching import TINY, UNSHIFTED, Commands, finish, num_lines, wait_for
from sweep_plans import rows_of

from launch.cli import subprocesses


def test_flags_of_the_sweep_are_not_passed_on():
    argv = "--config=a.py --grid=x=1 --grid y=2,3 --config.grid=4 -seeds 0:2 --debug"
    passed = subprocesses.passed_on(argv.split(), ("seeds", "grid", "workdir"))
    assert passed == ["--config=a.py", "--config.grid=4", "--debug"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("compiled"))


def flags(workdir, *more):
    key = "students.single_conf_ods.step_size"
    return [
        f"--config={TINY}:single_none,single_conf_ods",
        *UNSHIFTED,
        f"--workdir={workdir}",
        "--seeds=0:2",
        f"--grid={key}=0.01,0.02",
        *more,
    ]


def test_bad_input_is_told_in_a_line_before_any_work(commands, tmp_path):
    done = commands.run("sweep", *flags(tmp_path / "x", "--grid=distill.alpha=2"))
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert "distill.alpha=2.0 must be a number from 0 to 1" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.long
def test_a_sweep_killed_half_way_goes_on(commands, tmp_path):
    """Is killed in the second run, stopped in the third, then finishes."""
    runs = [
        tmp_path / f"step_size={step}/seed{seed}"
        for seed in (0, 1)
        for step in (0.01, 0.02)
    ]

    def start():
        return commands.start("sweep", *flags(tmp_path))

    process = start()
    wait_for(lambda: num_lines(runs[1] / "students/single_none/metrics.jsonl"), process)
    process.kill()  # its child process continues
    finish(process)
    assert (runs[0] / "finished.json").exists() and not (
        runs[1] / "finished.json"
    ).exists()
    time.sleep(1)
    while not (runs[1] / "report.html").exists():
        time.sleep(0.1)
    first = (runs[0] / "finished.json").stat().st_mtime_ns

    process = start()
    wait_for(lambda: (runs[2] / "students").exists(), process)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 75, done
    assert "interrupted: 2 of 4 runs are done; run the command again" in done.stderr
    assert f"{runs[0]}: complete" in done.stdout

    done = finish(start())
    assert done.code == 0, done
    assert not re.search(r"^teachers  epoch", done.stderr, re.M)
    assert (runs[0] / "finished.json").stat().st_mtime_ns == first
    assert len(list((tmp_path / "teachers").iterdir())) == 2  # one of each seed
    for run in runs:
        log = (run / "students/single_conf_ods/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3]
        assert not (run / "teachers").exists()
    result = json.loads((tmp_path / "sweep.json").read_text())
    rows = rows_of(result, "single_conf_ods")
    assert [row["setting"] for row in rows] == ["step_size=0.01", "step_size=0.02"]
    assert all(row["seeds"] == [0, 1] and "se" in row["cnll"] for row in rows)
    assert rows[1]["difference"]["cnll"]["mean"] != 0
    same = rows_of(result, "single_none")
    assert same[1]["difference"]["cnll"]["mean"] == 0
    assert "Δ cNLL" in done.stdout and (tmp_path / "sweep.md").exists()

    done = commands.run("sweep", *flags(tmp_path))
    assert done.code == 0 and done.stdout.count(": complete") == 4
    assert done.stderr == ""


@pytest.mark.long
def test_a_run_that_fails_does_not_end_the_sweep(commands, tmp_path):
    grid = "--grid=distill.learning_rate=1e30,0.1"
    one = [f"--config={TINY}:single_none", f"--workdir={tmp_path}", "--seeds=0", grid]
    done = commands.run("sweep", *one)
    assert done.code == 1 and "learning_rate=1e+30/seed0 (exit code 1)" in done.stderr
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert [s["name"] for s in result["settings"]] == ["learning_rate=0.1"]
    assert result["notes"] == [
        "Left out because unfinished: learning_rate=1e+30/seed0."
    ]
