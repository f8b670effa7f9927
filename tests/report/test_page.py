"""Tests of the whole report."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from report_pages import (
    HOSTILE,
    NUM_MEMBERS,
    RUN,
    SOFTWARE,
    make_run,
    markdown_cells,
    read_page,
    student,
)

from edp import report
from edp.errors import InputError
from edp.report.page import table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    rows = make_run(workdir)
    return workdir, rows, report.write_report(workdir)


def test_whole_report(run):
    workdir, _, path = run
    assert path == workdir / "report.html"
    page = read_page(path)
    assert path.stat().st_size < 2e6
    names = [tag for tag, _ in page.tags]
    # cNLL, the front, error against coverage, four panels of diversity, reliability of
    # DE-4 and six students.
    assert names.count("svg") == 3 + 4 + 7
    # Six examples: one clean image each, six perturbed ones with their change.
    assert names.count("img") == 6 * (1 + 2 * 6)
    members = [a for tag, a in page.tags if tag == "li" and "class" in a]
    assert len(members) == 6 * 7 * NUM_MEMBERS
    # The predictions are random, so no interval is given.
    assert "teachers.npz does not give the cNLL of DE-4's row" in page.text
    links = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    # No section is empty: nothing was trained, and no other sets were evaluated.
    assert (
        links
        == sections
        == [*("results", "cost", "diversity", "reliability", "risk", "gallery", "run")]
    )
    for message in ("digits", "convnet", "17", SOFTWARE, "cpu (2 cores), Linux-6.1"):
        assert message in page.text
    assert sorted(p.name for p in workdir.iterdir() if p.name.startswith(".")) == []


def test_facts():
    rows = [
        {"model": "DE-1", "kind": "ensemble", "num_members": 1, "seed": 3},
        {"model": "DE-2", "kind": "ensemble", "num_members": 2, "seed": 3},
        student("be", 0.1, num_members=9, seed=4),
    ]
    config = {
        "seed": 0,
        "data": {"source": "digits", "name": None, "path": None},
        "model": {
            "depth": 28,
            "name": "wide_resnet",
            "widen_factor": 10,
            "width": None,
        },
    }
    assert report.describe_run(rows, config, RUN) == {
        "Dataset": "digits",
        "Model": "wide_resnet, depth 28, widen_factor 10",
        "Members": "2",
        "Seed": "0",
        "Software": SOFTWARE,
        "Hardware": "cpu (2 cores), Linux-6.1",
    }
    assert report.describe_run(rows, {}, {}) == {"Members": "2", "Seed": "3, 4"}
    assert report.describe_run([], {"data": "cifar10", "model": None}, {}) == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_devices": 8}, "cpu (8 × cpu, 2 cores), Linux-6.1"),
        (
            {"backend": "gpu", "device": "NVIDIA H100", "cpu_count": 64},
            "gpu (NVIDIA H100, 64 CPU cores), Linux-6.1",
        ),
        (
            {
                "backend": "tpu",
                "device": "TPU v4",
                "num_devices": 8,
                "num_processes": 2,
            },
            "tpu (8 × TPU v4, 2 CPU cores), 2 processes, Linux-6.1",
        ),
        ({"cpu_count": None, "platform": ""}, "cpu"),
    ],
)
def test_hardware(changed, message):
    assert report.describe_run([], {}, RUN | changed)["Hardware"] == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "tfds", "name": "cifar10", "path": None}, "cifar10"),
        ({"source": "folder", "name": None, "path": "/data/birds/"}, "birds"),
        ({"source": "npz", "name": "cifar10", "path": "sets/mnist.npz"}, "mnist.npz"),
        ({"source": "folder", "path": "."}, "folder"),
        ({"source": "digits", "name": "cifar10", "path": "x"}, "digits"),
    ],
)
def test_the_dataset_shown(data, message):
    assert report.describe_run([], {"data": data}, {}) == {"Dataset": message}


def test_page_needs_nothing_from_elsewhere(run):
    page = read_page(run[2])
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids)) > 0
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            if target is not None:
                assert target.startswith(("data:image/png;base64,", "#"))
                assert not target.startswith("#") or target[1:] in ids
    text = run[2].read_text()
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert not re.findall(r"url\((?!#)|@import|https?://", text)
    # No placeholder colour is left, and all variables used are defined.
    assert not re.findall(r"#0[1-5]0[1-5]0\d", text)
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(
        re.findall(r"(--\w+):", text)
    )


def test_writing_again_gives_the_same(run):
    workdir, _, path = run
    before = [path.read_bytes(), (workdir / "results.md").read_bytes()]
    report.write_report(workdir)
    assert [path.read_bytes(), (workdir / "results.md").read_bytes()] == before


def test_numbers_in_both_tables_are_the_rows(run):
    workdir, rows, path = run
    markdown = (workdir / "results.md").read_text()
    markdown, _, _ = markdown.partition("## With and without")
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    shown = markdown_cells("\n".join(lines))
    web = read_page(path).rows[: len(rows) + 1]
    columns = [c for c in table.COLUMNS if not c.spare or c.key == "aurc"]
    assert shown[0] == [column.title for column in columns]
    assert [title.replace("\N{NO-BREAK SPACE}", " ") for title in web[0]] == shown[0]
    assert len(web) == len(shown) - 1 == len(rows) + 1
    first = ["DE-1", "–", "–", "90.00", "0.4000", "0.3900", "3.12"]
    first += ["5.12", "0.1500"]
    assert web[1] == shown[2] == [*first, "–", "–", "1.00"]
    factors = {"accuracy": 100, "ece": 100, "aurc": 100, "gap_closed": 100}
    factors |= {"nll": 1, "cnll": 1, "brier": 1, "dee": 1}
    keys = [column.key for column in columns]
    for row, in_markdown, in_web in zip(rows, shown[2:], web[1:], strict=True):
        assert in_web[0] == in_markdown[0] == row["model"]
        for key, factor in factors.items():
            for cell in (in_markdown[keys.index(key)], in_web[keys.index(key)]):
                if key in row:
                    digits = len(cell.strip("*").split(".")[1])
                    error = abs(float(cell.strip("*")) - factor * row[key])
                    assert digits >= 1 and error <= 0.5000001 * 10**-digits
                else:
                    assert cell == "–"


def test_bold_in_html(run):
    lines = re.findall(r"<tr.*?</tr>", run[2].read_text(), re.DOTALL)
    bold = [re.findall(r"<b>(.*?)</b>", line) for line in lines[: len(run[1]) + 1]]
    assert bold[5] == ["3.15"]  # The scores of the students rise, so does the ECE.
    assert bold[-1] == ["90.24", "0.3803", "0.3703", "4.67", "0.1441", "3.00", "50.0"]
    assert not any(bold[:5] + bold[6:-1])


def test_terminal_table_is_aligned_and_fits(run):
    rows = run[1]
    long = [dict(row, model="batch_ensemble_" * 3 + row["model"]) for row in rows]
    for given in (rows, long, rows[:4]):
        lines = report.format_table(given).splitlines()
        assert max(map(len, lines)) <= 100
        assert len({len(line) for line in lines}) == 1  # The last column is full.
        start = [m.start() for m in re.finditer(r"(?<=  )─|^─", lines[1])]
        for line in lines:
            assert all(line[i - 2 : i] == "  " for i in start[1:])
    shown = report.format_table(long).splitlines()[-1].split()[0]
    assert "…" in shown and shown.endswith("_ods")
    with pytest.raises(ValueError, match="'plain', 'markdown'"):
        report.format_table(rows, "latex")


def test_only_results(tmp_path):
    rows = [student("kd", 0.3), student("ods", 0.2, "ods", temperature_at_bound=True)]
    rows[0]["skipped_steps"] = 3
    (tmp_path / "results.json").write_text(json.dumps(rows))
    page = read_page(report.write_report(tmp_path))
    for message in (
        "there is no run.json",
        "there is no config.json",
        "there is no analysis.json",
        "there is no gallery.npz",
        "there is no kd.npz; there is no ods.npz",
        "Best student ods: cNLL 0.200. One seed.",
        "The best student was chosen on the test images",
        "There are no predictions to compute intervals from.",
        "at the bound of its search range",
        "non-finite loss or gradient were skipped: 3 of kd.",
    ):
        assert message in page.text, message
    # The level lines of the students; without intervals, no verdict.
    assert [tag for tag, _ in page.tags].count("svg") == 1
    markdown = (tmp_path / "results.md").read_text()
    assert re.search(r"\| single +\| ods +\| kd +\| -0.1000 \| – +\| – +\|", markdown)
    assert "ods is" not in page.text


def test_teachers_only_and_damaged_files(tmp_path):
    rows = make_run(tmp_path)[:1]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    (tmp_path / "analysis.json").write_text('{"diversity": [')
    (tmp_path / "gallery.npz").write_bytes(b"PK no archive")
    (tmp_path / "run.json").write_text("[]")
    page = read_page(report.write_report(tmp_path))
    # The front, calibrated NLL, reliability, error against coverage.
    assert [tag for tag, _ in page.tags].count("svg") == 4
    for name in ("analysis.json is not valid JSON", "gallery.npz cannot be read"):
        assert name in page.text
    assert "run.json is damaged" in page.text
    assert str(tmp_path) not in page.text


def test_damaged_predictions_are_left_out_with_a_sentence(tmp_path):
    make_run(tmp_path)
    folder = tmp_path / "predictions"
    (folder / "teachers.npz").write_bytes(b"PK no archive")
    np.savez(folder / "kd.npz", test_probs=np.ones((1, 5, 3)) / 3)
    arrays = dict(np.load(folder / "be.npz"))
    np.savez(folder / "be.npz", **arrays | {"test_labels": arrays["test_labels"][:9]})
    page = read_page(report.write_report(tmp_path))
    for kind in ("reliability diagrams", "risk-coverage curves"):
        reasons = re.search(rf"{kind}: (.*)", page.text)[1].split("; ")
        assert reasons[0].startswith("teachers.npz cannot be read as an .npz")
        assert reasons[1].startswith("kd.npz cannot be read") and "labels" in reasons[1]
        assert reasons[2].startswith("be.npz: ")
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    (label,) = (label for label in labels if "coverage" in label)
    names = [message.split()[0] for message in label.split(": ")[1].split(", ")]
    assert names == ["kd_noise", "kd_ods", "kd_conf_ods", "be_conf_ods"]


def test_diverged_student_is_left_out_of_the_diagrams(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "predictions" / "kd.npz"
    arrays = dict(np.load(path))
    arrays["test_probs"][:] = np.nan
    np.savez(path, **arrays)
    page = read_page(report.write_report(tmp_path))
    assert [tag for tag, _ in page.tags].count("svg") == 3 + 4 + 6
    assert "coverage curves: kd.npz: confidence has NaN" in page.text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    (label,) = (label for label in labels if "coverage" in label)
    assert "kd_noise" in label and "kd " not in label
    assert not (tmp_path / "figures" / "reliability_kd.svg").exists()
    assert "diagrams: kd.npz: probs has smallest entry" in page.text


@pytest.mark.parametrize("text", [None, "{", "{}", "[1]", '[{"kind": "student"}]'])
def test_no_results_no_report(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_all_text_is_escaped(tmp_path):
    make_run(tmp_path, hostile=True)
    path = report.write_report(tmp_path)
    page = read_page(path)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "i" not in names
    assert names.count("svg") == 3 + 4 + 7
    files = {p.name for p in (tmp_path / "figures").iterdir()}
    assert {"reliability__a_b_ _i___.svg".replace(" ", "_")} < files
    for message in (HOSTILE, "<script>alert(1)", "$a_b$ <i>|*"):
        assert message in page.text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert any("$a_b$ <i>|*" in label for label in labels)
    markdown = (tmp_path / "results.md").read_text()
    assert "<script" not in markdown and r"$a_b$ &lt;i>\|\*" in markdown
    widths = {len(markdown_cells(t)[0]) for t in markdown.split("\n") if t[:1] == "|"}
    # Of spare columns only AURC has values; the comparison and the ranking have six.
    assert widths == {1 + sum(not column.spare for column in table.COLUMNS), 6}


def test_a_name_cannot_lead_out_of_the_work_directory(tmp_path):
    make_run(tmp_path / "run")
    secret = tmp_path / "run" / "predictions" / "kd.npz"
    os.replace(secret, tmp_path / "run" / "kd.npz")
    rows = [student("../kd", 0.3)]
    (tmp_path / "run" / "results.json").write_text(json.dumps(rows))
    page = read_page(report.write_report(tmp_path / "run"))
    assert "reliability diagrams: there is no kd.npz." in page.text


def test_failure_leaves_the_old_report(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "results.md").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_report(tmp_path)
    assert (tmp_path / "results.md").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"results.json", "results.md"}


def test_import_is_light():
    heavy = {"matplotlib", "jax", "PIL", "scipy"}
    code = f"import sys, edp.report; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_no_report_imports_jax(run):
    code = """
import sys, edp.report
edp.report.write_report(sys.argv[1])
from edp.report.seeds import runs, summary, sweep_results, sweep_tables, tables
print({"jax", "flax", "optax", "orbax"} & {*sys.modules}, "matplotlib" in sys.modules)
"""
    command = [sys.executable, "-c", code, run[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "set() True", done.stderr


def test_figures_are_files_too(run):
    folder = run[0] / "figures"
    names = {path.name for path in folder.iterdir()}
    diversities = ("pairwise_kl", "disagreement_rate", "variance", "error")
    students = [row["model"] for row in run[1] if row["kind"] == "student"]
    assert names == {
        "cnll.svg",
        "pareto.svg",
        "risk_coverage.svg",
        *(f"diversity_{key}.svg" for key in diversities),
        *(f"reliability_{name}.svg" for name in ["DE-4", *students]),
    }
    labels = [a["aria-label"] for tag, a in read_page(run[2]).tags if tag == "svg"]
    for path in folder.iterdir():
        assert path.stat().st_size < 60_000
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert root.attrib["aria-label"] in labels
        assert "var(" not in text and "class=" not in text
        ids = {element.get("id") for element in root.iter()}
        for name in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text):
            assert "".join(name) in ids


def test_a_narrow_terminal_does_without_the_spare_column(run):
    for width, has in ((80, False), (99, False), (120, True)):
        text = report.format_table(run[1], width=width)
        assert max(map(len, text.splitlines())) <= width
        assert ("AURC" in text) is has
        for heading in ("cNLL", "Brier", "cost"):
            assert heading in text


def test_gallery_shows_the_change_amplified(run):
    # All changes are 0.04, and 10 is the largest round gain that keeps them in range.
    page = read_page(run[2])
    assert "10 times amplified" in page.text
    images = [a for tag, a in page.tags if tag == "img"]
    change = next(a for a in images if a["alt"] == "change by kd")
    raw = base64.b64decode(change["src"].split(",")[1])
    values = np.asarray(Image.open(io.BytesIO(raw))) / 255
    assert set(np.round(values.ravel(), 1)) == {0.1, 0.9}
    arrays = np.load(run[0] / "gallery.npz")
    probs = arrays["probs"][0, :, 0]
    message = [f"{['ant', 'bee', 'cat'][p.argmax()]} {p.max():.2f}" for p in probs]
    assert images[0]["alt"] == "clean; members predict " + ", ".join(message)
    item = next(a for tag, a in page.tags if tag == "li" and "class" in a)
    assert item["class"] == ("right" if probs[0].argmax() == 0 else "wrong")
    assert item["style"] == f"--p:{100 * probs[0].max():.0f}%"
