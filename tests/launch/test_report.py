"""Tests the command that renders the report of a run."""

import pathlib
import subprocess
import sys

from report_pages import make_run


def test_the_command_needs_nothing_but_the_files(tmp_path):
    workdir = tmp_path / "run"
    make_run(workdir)

    def command(*flags):
        program = (
            "import runpy, sys\n"
            "try:\n"
            "    runpy.run_module('launch.report', run_name='__main__')\n"
            "finally:\n"
            "    heavy = sys.modules.keys() & {'jax', 'grain', 'sklearn'}\n"
            "    print(sorted(heavy), file=sys.stderr)\n"
        )
        return subprocess.run(
            [sys.executable, "-c", program, *flags],
            capture_output=True,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )

    done = command(f"--workdir={workdir}")
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "[]", done
    assert "DE-4" in done.stdout
    assert done.stdout.endswith(f"Report: {workdir / 'report.html'}\n")
    assert (workdir / "report.html").exists() and not (workdir / ".lock").exists()
    # As older versions required it.
    page = (workdir / "report.html").read_bytes()
    done = command("--config=digits", f"--workdir={workdir}")
    assert done.returncode == 0 and (workdir / "report.html").read_bytes() == page
    done = command(f"--workdir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert f"error: there is no {tmp_path}/none/results.json;" in done.stderr
    assert not (tmp_path / "none").exists()
    done = command()
    assert done.returncode == 2 and "--workdir is required" in done.stderr
