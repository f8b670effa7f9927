"""Tests the command `python -m benchmarks`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import cases, tables

ROOT = pathlib.Path(__file__).parents[2]


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.long
def test_command_writes_rows_and_a_table(tmp_path):
    done = run_command(
        "--cases=tiny",
        f"--steps=perturb/ods,{cases.HEADLINE_STEP}",
        "--strategies=vmap",
        "--rounds=2",
        "--round_seconds=0",
        "--repeats=0",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    metadata = json.loads((tmp_path / "machine.json").read_text())
    peer = {("pytorch", None)} if "torch" in metadata else set()
    for name in ("perturb/ods", cases.HEADLINE_STEP):
        group = [r for r in rows if r["what"] == name]
        contenders = {(r["contender"], r.get("strategy")) for r in group}
        assert contenders == {("edp", "vmap")} | peer
        assert len(group) == len(contenders)
    for r in rows:
        assert r["case"] == "tiny" and r["backend"] == "cpu"
        assert r["batch_size"] / r["seconds_per_step"] == r["images_per_second"]
        assert len(r["round_seconds_per_step"]) == 2
        assert (r["ratio_to_peer"] is not None) == ("torch" in metadata)
        assert 0 < r["mfu"] < 1 and r["flops"] > 0
        if r["contender"] == "edp":
            assert r["peak_bytes"] > 0 and r["compile_seconds"] > 0
            assert r["compiler_flops"] > 0
    assert metadata["command"].startswith("python -m benchmarks --cases=tiny")
    assert metadata["peak_flops_per_second"]["float32"]["matmul"] > 0
    table = (tmp_path / "benchmark.md").read_text()
    assert table.count("| tiny |") == len(rows)
    assert tables.format_table(rows) in done.stdout


def test_command_refuses_in_one_line(tmp_path):
    done = run_command("--cases=tinny", f"--output={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cases='tinny'")
    assert not list(tmp_path.iterdir())
