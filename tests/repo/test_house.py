"""Tests the layout: few packages, short files, and their list in the README."""

import pathlib
import re

import grimp

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("edp", "launch", "benchmarks", "configs")


def boxes():
    """Returns modules and packages one level below `edp`, and the other packages."""
    graph = grimp.build_graph(*PACKAGES)
    inside = {name for name in graph.modules if re.fullmatch(r"edp\.\w+", name)}
    return inside | {*PACKAGES[1:]}


def test_there_are_few_boxes():
    found = sorted(boxes())
    print(f"\n{len(found)} boxes: {', '.join(found)}")
    assert len(found) <= 20
    loose = {path.stem for path in (ROOT / "edp").glob("[!_]*.py")}
    assert loose == {"errors", "distill", "ensemble", "fit", "losses"}


def test_the_readme_has_a_line_for_each_room():
    _, house = (ROOT / "README.md").read_text("utf-8").split("## The ten rooms")
    listed = re.findall(r"^\| `edp/(\w+)/` \| \w", house.split("\n## ")[0], re.M)
    rooms = {path.parent.name for path in (ROOT / "edp").glob("*/__init__.py")}
    assert sorted(listed) == sorted(rooms) and len(rooms) == 10


def test_files_are_short():
    folders = [ROOT / name for name in (*PACKAGES, "tests")]
    paths = {path for folder in folders for path in folder.rglob("*.py")}
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    assert not {path: number for path, number in lines.items() if number > 350}


def test_tests_lie_in_folders_of_the_rooms():
    others = {"launch", "benchmarks", "library", "end_to_end", "repo"}
    rooms = {path.parent.name for path in (ROOT / "edp").glob("*/__init__.py")}
    found = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert found == rooms | others
