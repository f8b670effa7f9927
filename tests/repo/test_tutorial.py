"""Tests that the notebook runs from top to bottom, without Jupyter."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import documents
import pytest
from documents import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_is_kept_without_outputs():
    assert len(cells("code")) > 5 and len(cells("markdown")) > 5
    for cell in cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None


def test_it_installs_what_is_there(tmp_path, monkeypatch):
    """Installs the parent folder in a checkout, else an uploaded wheel, else raises."""
    install = "".join(cells("code")[0]["source"])
    calls = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda words, check: calls.append(words[-1]))
    monkeypatch.chdir(ROOT / "docs")
    exec(install, {})
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    with pytest.raises(FileNotFoundError, match=r"no edp_jax-\*.whl is here"):
        exec(install, {})
    (tmp_path / "content/edp_jax-0.1.0-py3-none-any.whl").touch()
    exec(install, {})
    assert calls == ["..", "edp_jax-0.1.0-py3-none-any.whl"]


@pytest.mark.long
def test_it_runs_in_three_minutes(tmp_path):
    source = "\n\n".join("".join(cell["source"]) for cell in cells("code"))
    program = tmp_path / "tutorial.py"
    program.write_text(source, "utf-8")
    environment = documents.environment() | {"MPLBACKEND": "agg"}
    # The user's environment, not that of the tests.
    environment = {k: v for k, v in environment.items() if k != "XLA_FLAGS"}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, program],
        cwd=ROOT / "docs",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - start
    print(f"{seconds:.0f} s\n{done.stdout}")
    # Not checked on a loaded machine.
    assert os.getloadavg()[0] > 2 or seconds < 180
    assert "mixup_tau4" in done.stdout and "a 0" in done.stdout
