"""Tests that summaries replace their own files only."""

import subprocess
import sys

import documents
import pytest
from seed_runs import make_run

from edp.errors import InputError
from edp.report.seeds import outputs, runs, sweep_results, sweep_tables, tables


@pytest.mark.parametrize("name", ["summary.md", "cnll.svg", "summary.json"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=rf"out='.*' holds {name}, not of an earlier"):
        outputs.check_out(tmp_path, "summary", outputs.SUMMARY)


def test_earlier_summaries_are_replaced(summed, workdirs, tmp_path):
    outputs.check_out(tmp_path, "summary", outputs.SUMMARY)
    written = tables.write_summary(summed, tmp_path)
    assert {*written} <= {"summary.json", *outputs.SUMMARY}
    outputs.check_out(tmp_path, "summary", outputs.SUMMARY)
    result = sweep_results.summarize_groups(runs.read_groups(workdirs))
    assert {*sweep_tables.write_sweep(result, tmp_path)} <= {
        *("sweep.json", "sweep.md", "sweep.svg")
    }
    outputs.check_out(tmp_path, "sweep", ("sweep.md", "sweep.svg"))


def test_the_command_refuses_before_it_writes(workdirs, tmp_path):
    other = make_run(tmp_path / "other", 0, dtype="bfloat16")
    out = tmp_path / "out"
    (out / "setting2").mkdir(parents=True)
    (out / "setting2/summary.md").write_text("mine")
    given = f"--workdirs={workdirs[0]},{other}"
    done = subprocess.run(
        [sys.executable, "-m", "launch.summarize", given, f"--out={out}"],
        cwd=documents.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "setting2' holds summary.md" in done.stderr
    assert [path.name for path in out.rglob("*.*")] == ["summary.md"]
