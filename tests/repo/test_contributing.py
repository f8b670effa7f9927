"""Tests that the worked examples of CONTRIBUTING.md run."""

import shutil
import subprocess
import sys

import documents
import pytest
from documents import ROOT

PAGE = ROOT / "CONTRIBUTING.md"


def add_file(root, text):
    first, rest = text.split("\n", 1)
    (root / first.removeprefix("# ")).write_text(rest)


def add_lines(root, diff):
    first, *lines = diff.splitlines()
    path = root / first.removeprefix("--- ")
    old = path.read_text().splitlines()
    after = None
    for line in lines:
        if line.startswith("+"):
            after += 1
            old.insert(after, line[1:])
        else:
            assert old.count(line[1:]) == 1, line
            after = old.index(line[1:])
    path.write_text("\n".join(old) + "\n")


@pytest.fixture
def extended(tmp_path):
    """Returns a copy of the project with the examples of the page added."""
    for name in ("edp", "launch", "configs"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for block in documents.blocks(PAGE, "python"):
        add_file(tmp_path, block.text)
    for block in documents.blocks(PAGE, "diff"):
        add_lines(tmp_path, block.text)
    return tmp_path


def run(root, *words):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=documents.environment() | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_worked_examples_are_registered(extended):
    program = (
        "from edp import perturbations, students\n"
        "from edp.data import sources\n"
        "print('tint' in perturbations.PERTURBATIONS,"
        " 'geometric' in students.STUDENTS, 'stripes' in sources.SOURCES)"
    )
    assert run(extended, "-c", program).split() == ["True"] * 3


@pytest.mark.long
def test_the_worked_examples_run(extended):
    (command,) = [words for words in documents.commands(PAGE) if words[0] == "python"]
    run(extended, *command[1:])
    rows = (extended / "runs/stripes/results.md").read_text()
    assert "geometric" in rows and "tint" in rows
