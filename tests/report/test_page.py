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
    SOFTWARE,
    make_run,
    markdown_cells,
    read_page,
    student,
)

from edp import report
from edp.report.page import table


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
