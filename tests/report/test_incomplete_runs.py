"""Tests of reports of runs with missing or damaged files."""

import json
import os
import re

import numpy as np
import pytest
from report_pages import make_run, read_page, student

from edp import report
from edp.errors import InputError


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
