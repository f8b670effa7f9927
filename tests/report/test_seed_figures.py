"""Tests of the figures of a summary over seeds."""

import re
import xml.etree.ElementTree as ElementTree

from seed_runs import make_run

from edp.report.figures import seed_figures
from edp.report.figures.distance import by_distance
from edp.report.figures.svg import standalone
from edp.report.seeds import runs, summary, tables


def many_models(count):
    def row(name, mean, kind, perturbation):
        cnll = {"mean": mean, "se": 0.01, "by_seed": {}}
        fields = {"model": name, "kind": kind, "cnll": cnll}
        return fields | {"perturbation": perturbation}

    rows = [row(f"DE-{m}", 1 - m / 10, "ensemble", None) for m in range(1, 5)]
    return rows + [
        row(f"single_of_kind_{i}", 0.9 - i / 60, "student", ("none", "ods")[i % 2])
        for i in range(count)
    ]


def test_figures_are_small_files_of_their_own(summed):
    for svg in (
        standalone(seed_figures.cnll(many_models(10))),
        standalone(seed_figures.argument(summed["diversity"])),
    ):
        assert len(svg.encode()) < 60_000
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in svg


def test_the_figures_say_what_they_show(summed):
    label = re.search('aria-label="([^"]*)"', seed_figures.cnll(summed["models"]))[1]
    names = [part.split()[0] for part in label.partition(": ")[2].split(", ")]
    students = [m for m in summed["models"] if m["kind"] == "student"]
    students.sort(key=lambda m: m["cnll"]["mean"])
    assert names == ["DE-1", "DE-2", *(m["model"] for m in students)]
    assert "DE-1 2.0000 ± 0.5774" in label
    svg = seed_figures.argument(summed["diversity"])
    label = re.search('aria-label="([^"]*)"', svg)[1]
    assert "pairwise KL: training inputs 0.200 ± 0.0577" in label
    assert "ods, 5.1/255" in label and "10.2/255" not in label
    assert "mean member error, %: training inputs 1.0 ± 0.0" in label


def test_disagreement_by_distance_to_the_data():
    def row(inputs, distance, kl, error):
        values = {"pairwise_kl": kl, "error": error, "distance": distance}
        return {"inputs": inputs} | {k: {"mean": v} for k, v in values.items()}

    rows = [
        row("train", 0.0, 0.1, 0.0),
        row("test", 1.25, 0.8, 0.4),
        row("ods", 0.25, 0.4, 0.1),
        row("ods@0.1", 0.5, 0.6, 0.5),
        row("ods@0.01", 0.0625, 0.2, 0.0),
        row("noise", 0.3, 0.5, 0.4),
    ]
    svg = by_distance(rows)
    assert re.search('aria-label="([^"]*)"', svg)[1] == (
        "Pairwise KL by distance: training inputs 0.1; test inputs 0.8; "
        "ods 0.2 at 0.0625, 0.4 at 0.25, 0.6 at 0.5, lost; noise 0.5 at 0.3"
    )
    assert by_distance(rows[:2]) is by_distance(rows[2:]) is None
    del rows[2]["distance"]
    assert "0.4 at" not in by_distance(rows)


def test_nothing_to_draw_is_no_figure(tmp_path):
    assert seed_figures.cnll([]) is None and seed_figures.argument([]) is None
    path = make_run(tmp_path / "run", 0)
    (path / "analysis.json").unlink()
    summed = summary.summarize_runs(runs.read_runs([path]))
    files = tables.write_summary(summed, tmp_path / "out")
    assert files == ["cnll.svg", "pareto.svg", "summary.json", "summary.md"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*files}
    text = (tmp_path / "out/summary.md").read_text()
    assert "No run has an analysis.json" in text and "argument.svg" not in text
