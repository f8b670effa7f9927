"""Tests that each example runs."""

import os
import runpy
import shlex
import subprocess
import sys

import documents
import pytest
from documents import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.long
def test_own_config_runs(tmp_path):
    config = EXAMPLES / "own_config.py"
    flags = [f"--config={config}:debug", f"--workdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "launch.run", *flags],
        cwd=ROOT,
        env=documents.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "perturbed" in (tmp_path / "results.md").read_text()


@pytest.mark.long
def test_own_model_runs_and_five_networks_are_better_than_one():
    nll = runpy.run_path(str(EXAMPLES / "own_model.py"))["main"]()
    assert nll["five networks"] < nll["one network"]
    assert max(nll.values()) < 1  # ln 10 is the NLL of a uniform prediction


def test_cloud_tpu_prints_what_it_would_do():
    environment = documents.environment() | {"DRY_RUN": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", EXAMPLES / "cloud_tpu.sh"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    commands = [shlex.split(line) for line in lines]
    created = next(words for words in commands if "create" in words)
    assert {"--spot", "--accelerator-type=v5litepod-8"} <= set(created)
    assert "delete" in commands[-1]
    (run,) = {word for words in commands for word in words if "launch.run" in word}
    assert "--workdir=gs://my-bucket/edp/c10_resnet32" in run


def test_scripts_can_be_started():
    assert os.access(EXAMPLES / "cloud_tpu.sh", os.X_OK)
