"""Tests that workdirs and data are never executed; only configuration files are."""

import ast
import json
import pathlib
import xml.etree.ElementTree

import numpy as np
import pytest
from report_pages import HOSTILE, make_run, read_page

from edp import report
from edp.errors import InputError
from edp.evaluation import predictions
from edp.runtime import storage

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [
    path
    for name in ("edp", "launch", "configs")
    for path in (ROOT / name).rglob("*.py")
]
# Functions that execute or unpickle their arguments.
MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
CALLS = {"__import__", "compile", "eval", "exec", "execfile"}
RUNS_CONFIGS = ROOT / "launch/cli/config_flag.py"
RUNS_COMMANDS = ROOT / "launch/__main__.py"  # only its own commands, by name


def offences(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
        else:
            names = set()
        yield from names & (MODULES | {"runpy"})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from {node.func.id} & CALLS
        if isinstance(node, ast.Call):
            for word in node.keywords:
                is_false = isinstance(word.value, ast.Constant) and not word.value.value
                if word.arg in ("allow_pickle", "shell") and not is_false:
                    yield f"{word.arg}="


def test_nothing_but_configuration_files_is_run():
    assert len(SOURCES) > 100
    found = {path: list(offences(ast.parse(path.read_text()))) for path in SOURCES}
    for path in (RUNS_CONFIGS, RUNS_COMMANDS):
        assert set(found.pop(path)) <= {"runpy"}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import runpy",
        "eval('1')",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_it_is_for(text):
    assert list(offences(ast.parse(text)))
    assert not list(offences(ast.parse("model.eval(); re.compile('a')")))


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_arrays_with_code_in_them_are_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    make_run(tmp_path)
    for name in ("gallery", "predictions/teachers"):
        path = tmp_path / f"{name}.npz"
        with np.load(path) as arrays:
            trapped = dict.fromkeys(arrays, trap)
        np.savez(path, **trapped)
        with pytest.raises(InputError, match=f"{name}.npz cannot be read"):
            storage.read_npz(path)
    with pytest.raises(InputError, match="does not hold predictions"):
        predictions.load_predictions(tmp_path / "predictions/teachers.npz")
    page = read_page(report.write_report(tmp_path))
    assert "gallery.npz cannot be read as an .npz of plain arrays" in page.text
    assert not sprung.exists()
    np.load(path, allow_pickle=True)[next(iter(trapped))]
    assert sprung.exists()  # the trap works


def test_figures_and_tables_show_names_as_text(tmp_path):
    make_run(tmp_path, hostile=True)
    row = {"model": "kd", "set": HOSTILE, "score": HOSTILE, "auroc": 0.5}
    (tmp_path / "ood.json").write_text(json.dumps({"rows": [row], "protocol": HOSTILE}))
    row = {"model": HOSTILE, "cnll": 1.0, "accuracy": 0.5}
    rows = [{**row, "corruption": "none", "severity": 0}]
    rows += [{**row, "corruption": "mean", "severity": s} for s in range(1, 6)]
    rows += [{**row, "corruption": HOSTILE, "severity": 1}]
    (tmp_path / "corruptions.json").write_text(json.dumps({"rows": rows}))
    page = read_page(report.write_report(tmp_path))
    assert [tag for tag, _ in page.tags].count("script") == 1  # only the page's own
    assert page.text.count(HOSTILE) >= 4
    figures = list((tmp_path / "figures").glob("*.svg"))
    assert len(figures) > 10
    for path in figures:
        tree = xml.etree.ElementTree.parse(path)
        tags = {element.tag.split("}")[1] for element in tree.iter()}
        assert tags <= {"svg", "g", "path", "rect", "use", "defs", "clipPath", "text"}
        for element in tree.iter():
            assert not [key for key in element.attrib if key.lower().startswith("on")]
