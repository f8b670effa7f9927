"""Tests of the table of students with and without a perturbation."""

import json

import scored_runs
from report_pages import read_page

from edp import report

TITLE, OTHERS = "With and without a perturbation", "they also differ in"


def write_settings(workdir, name, **distill):
    path = workdir / "students" / name / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seed": 0, "distill": distill}))


def test_other_settings_that_differ_are_named(tmp_path):
    scored_runs.write(tmp_path, {"kd": ("none", 2.0, 2.0), "ods": ("ods", 3.0, 3.0)})
    shared = {"alpha": 0.9, "num_epochs": 9}
    write_settings(tmp_path, "kd", perturbation="none", temperature=1.0, **shared)
    own = {"step_size": 0.1, "temperature": 4.0}
    write_settings(tmp_path, "ods", perturbation="ods", **own, **shared)
    page = read_page(report.write_report(tmp_path))
    text = (tmp_path / "results.md").read_text()
    section = text.partition(TITLE)[2].partition("\n## ")[0]
    assert OTHERS in section and "| temperature " in section
    assert "step" not in section and "perturbation alone" in section
    assert OTHERS in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_students_that_differ_in_the_perturbation_alone(tmp_path):
    scored_runs.write(tmp_path, {"kd": ("none", 2.0, 2.0), "ods": ("ods", 3.0, 3.0)})
    write_settings(tmp_path, "kd", perturbation="none", alpha=0.9)
    for known in (False, True):
        if known:
            write_settings(tmp_path, "ods", perturbation="ods", alpha=0.9, step_size=1)
        report.write_report(tmp_path)
        text = (tmp_path / "results.md").read_text()
        assert TITLE in text and OTHERS not in text
