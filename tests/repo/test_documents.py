"""Tests that the code and commands of the README and docs/ work."""

import json
import re
import subprocess
import sys

import documents
import numpy as np
import pytest
from documents import ROOT

README = ROOT / "README.md"
CONTRIBUTING = (
    ROOT / "CONTRIBUTING.md"
)  # its code is files: tests/repo/test_contributing.py


def pages_with_python():
    for page in documents.PAGES:
        if documents.blocks(page, "python") and page not in (README, CONTRIBUTING):
            long = documents.LONG in page.read_text("utf-8")
            marks = [pytest.mark.long] if long else []
            yield pytest.param(page, id=documents.name(page), marks=marks)


@pytest.mark.parametrize("page", list(pages_with_python()))
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents.run_python(page)


def test_the_readme_runs_and_perturbs_the_inputs():
    names = documents.run_python(README)
    block, *_ = documents.blocks(README, "python")
    assert len(block.text.strip().splitlines()) < 20
    images, perturbed = names["images"], names["perturbed"]
    lengths = np.linalg.norm(np.asarray(perturbed - images), axis=1)
    # A full step, except for pixels clipped to [0, 1].
    assert (lengths > 0.9 / 255 * np.sqrt(784)).all()


def test_the_readme_opens_with_the_two_commands():
    opening = README.read_text("utf-8").split("```")[1]
    assert re.findall(r"^make \w+", opening, re.MULTILINE) == ["make demo", "make test"]


def check(commands: list[list[str]]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "tests/support/check_commands.py"],
        input=json.dumps(commands),
        cwd=ROOT,
        env=documents.environment(),
        capture_output=True,
        text=True,
    )


def test_commands_take_the_flags_shown():
    commands, targets = [], []
    for page in documents.PAGES:
        for words in documents.commands(page):
            if words[:2] == ["python", "-m"] and page != CONTRIBUTING:
                commands.append(words[2:])
            elif words[0] == "edp":
                commands.append([f"launch.{words[1]}", *words[2:]])
            elif words[0] == "make":
                targets += [word for word in words[1:] if "=" not in word]
    assert commands and targets
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(known)
    # And an invalid one, to see that it is found.
    wrong = ["launch.run", "--config=configs/digits.py", "--config.sede=1"]
    done = check([*commands, wrong])
    (line,) = done.stdout.splitlines()
    assert done.returncode == 1 and "did you mean seed" in line, done.stderr


@pytest.mark.parametrize("page", documents.PAGES, ids=documents.name)
def test_links_lead_somewhere(page):
    for link in documents.links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in documents.anchors(path), link
