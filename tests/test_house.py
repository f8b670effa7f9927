"""The map of the files in the README is true: imports point down it only."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EDP = ROOT / "edp"


def rows():
    """By row of the table, the modules and packages of edp in it."""
    _, house = (ROOT / "README.md").read_text("utf-8").split("## The house")
    lines = [line for line in house.split("\n## ")[0].splitlines() if "| `" in line]
    found = [re.findall(r"`edp/(\w+)(?:/|\.py)`", line) for line in lines]
    return [row for row in found if row]


def imported(text):
    """The modules and packages of edp that a source imports, by absolute names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = (node.module or "").split(".")
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        yield from (name[1] for name in names if name[0] == "edp" and name[1:])
        yield from (name[0] for name in names if name[0] == "launch")


def sources():
    """By module or package, each of its sources."""
    for path in sorted(EDP.rglob("*.py")):
        name = path.relative_to(EDP).parts[0].removesuffix(".py")
        if name != "__init__":
            yield name, path


def test_every_module_has_its_place():
    listed = [name for row in rows() for name in row]
    assert sorted(listed) == sorted({name for name, _ in sources()})


def test_imports_point_down_and_leaves_import_no_other():
    order = [name for row in rows() for name in row] + ["__version__"]
    leaves = rows()[-2]
    assert "metrics" in leaves and rows()[-1] == ["errors"]
    wrong = []
    for name, path in sources():
        for other in set(imported(path.read_text("utf-8"))) - {name}:
            down = other in order and order.index(name) < order.index(other)
            if not down or (name in leaves and other in leaves):
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == []


def test_files_are_short():
    paths = [p for f in ("edp", "launch", "configs") for p in (ROOT / f).rglob("*.py")]
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    assert not {path: number for path, number in lines.items() if number > 350}


@pytest.mark.parametrize(
    "text",
    [
        "from edp import lock, paths",
        "from edp.lock import held",
        "import edp.lock",
        "def f():\n    from edp import lock",
        "from launch import lock",
    ],
)
def test_every_form_of_import_is_seen(text):
    assert set(imported(text)) & {"lock", "launch"}
    assert not set(imported("from . import lock; import json; from jax import lock"))
