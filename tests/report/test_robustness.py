"""Tests of the sections on OOD detection and corruptions, on synthetic files."""

import json
import re

import numpy as np
import pytest
from report_pages import Page, make_run, points, read_page, student

from edp import report
from edp.report.figures import lines
from edp.report.page import corruptions, measures, ood

HOSTILE = "<script>alert('x')</script>"
PROTOCOL = "300 images of <i>the</i> test set."
MODELS = {"DE-1": 0, "DE-4": 2, "kd": 1, "<ods>": 3}
ROWS = [student("kd", 0.4), student("<ods>", 0.3, "ods")]


def write(path, rows, **fields):
    path.write_text(json.dumps({"rows": rows, "protocol": PROTOCOL} | fields))
    return path


def ood_rows():
    scores = {"max_probability": 0.7, "predictive_entropy": 0.75}
    several = {"DE-4": {"pairwise_kl": 0.8}}
    return [
        {"model": model, "set": name, "score": score, "auroc": auroc + i / 100}
        for name in ("noise", HOSTILE)
        for model, i in MODELS.items()
        for score, auroc in (scores | several.get(model, {})).items()
    ]


def corruption_rows():
    rows = []
    for model, i in MODELS.items():
        for severity in range(6):
            # Includes rows that are not drawn.
            for name in ("mean", "fog") if severity else ("none",):
                place = {"model": model, "corruption": name, "severity": severity}
                cnll = 0.5 + 0.25 * severity + i / 100
                values = {"accuracy": 0.9 - 0.1 * severity + i / 100, "cnll": cnll}
                values |= {"nll": cnll + 1, "ece": 0.05 * severity}
                rows.append(place | values)
    return rows


def test_a_table_for_each_other_set(tmp_path):
    section = ood.ood_section(write(tmp_path / "ood.json", ood_rows()), ROWS).html
    page = Page(section)
    head = ["model", "max. probability", "predictive entropy", "pairwise KL"]
    table = [
        head,
        ["DE-1", "70.00", "75.00", "–"],
        ["DE-4", "72.00", "77.00", "82.00"],
        ["kd", "71.00", "76.00", "–"],
        ["<ods>", "73.00", "78.00", "–"],
    ]
    assert page.rows == 2 * table
    assert re.findall(r"<b>(.*?)</b>", section) == 2 * ["73.00", "78.00"]
    assert re.findall(r"<h3>(.*?)</h3>", section)[0] == "noise"
    assert HOSTILE in page.text and PROTOCOL in page.text
    assert not {"script", "i", "ods"} & {tag for tag, _ in page.tags}


def test_corruptions_are_drawn_against_the_severity(tmp_path):
    path = write(tmp_path / "corruptions.json", corruption_rows())
    section = corruptions.corruptions_section(path, ROWS).html
    labels = [a["aria-label"] for tag, a in Page(section).tags if tag == "svg"]
    assert len(labels) == 2
    assert labels[0].startswith(
        "accuracy, % by severity: DE-1 90 at 0, 80 at 1, 70 at 2, 60 at 3, 50 at 4, "
        "40 at 5; DE-4 92 at 0"
    )
    assert labels[1].startswith("calibrated NLL by severity: DE-1 0.5 at 0, 0.75 at 1")
    for svg in re.findall(r"<svg.*?</svg>", section, re.DOTALL):
        # The plain student is dashed, and colours are by place among the students.
        assert re.search(r"stroke-dasharray[^>]*stroke: var\(--s0\)", svg)
        curve = points(svg, "stroke: var(--s1); stroke-width: 1.6")
        heavy = points(svg, "stroke: var(--ink); stroke-width: 2.2")
        for line in (curve, heavy):
            assert len(line) == 6
            # Files have two decimals: half of 0.01 on each of a, b, b and c.
            np.testing.assert_allclose(np.diff(line, 2, axis=0), 0, atol=0.0201)
        np.testing.assert_array_equal(curve[:, 0], heavy[:, 0])


def test_corruptions_are_averaged_in_a_table(tmp_path):
    path = write(tmp_path / "corruptions.json", corruption_rows())
    section = corruptions.corruptions_section(path, ROWS).html
    page = Page(section)
    head = ["acc % clean", "corrupted", "NLL clean", "corrupted"]
    head += ["cNLL clean", "corrupted", "ECE % clean", "corrupted"]
    assert page.rows[0] == ["model", *head]
    assert [row[0] for row in page.rows[1:]] == list(MODELS)
    # The mean of severities 1 to 5 is 3.
    expected = ["91.00", "61.00", "1.5100", "2.2600"]
    expected += ["0.5100", "1.2600", "0.00", "15.00"]
    assert page.rows[3] == ["kd", *expected]
    best = ["93.00", "63.00", "1.5100", "2.2600", "0.5100", "1.2600"]
    assert sorted(re.findall(r"<b>(.*?)</b>", section)) == sorted(best)
    assert PROTOCOL in page.text


def test_further_measures_are_in_a_table(tmp_path):
    nlls = {"test_nll_by_mutual_errors": [0.75, 0.25], "test_nll_by_nll": [0.5, 0.25]}
    choice = {"by_mutual_errors": [1, 0], "by_nll": [0, 1], "mutual_errors": [[0]]}
    entries = [
        {"model": "DE-1", "augrc": 0.03, "worst_class_accuracy": 0.5, "by_class": {}},
        {"model": "DE-4", "augrc": 0.02, "set_coverage": 0.9, "set_size": 1.25}
        | {"members": choice | nlls},
        {"model": "kd", "augrc": 0.025, "worst_class_accuracy": 0.625},
        {"model": "<ods>", "augrc": 0.0125, "worst_class_accuracy": None},
    ]
    write(tmp_path / "measures.json", entries)
    perturbed = {"inputs": "kd", "by_mutual_errors": [1, 0]}
    perturbed |= {"test_nll_by_mutual_errors": [0.625, 0.25]}
    old = {"inputs": "train", "by_mutual_errors": [0, 1]}  # without the NLLs
    write(tmp_path / "analysis.json", [], members=[perturbed, old])
    section = measures.measures_section(tmp_path, ROWS).html
    page = Page(section)
    # Columns without values are left out.
    head = [text.replace("\N{NO-BREAK SPACE}", " ") for text in page.rows[0]]
    assert head[:3] == ["model", "sets cover %", "set size"]
    assert head[3:] == ["AUGRC %", "worst class acc %"]
    assert page.rows[1:5] == [
        ["DE-1", "–", "–", "3.00", "50.00"],
        ["DE-4", "90.0", "1.25", "2.00", "–"],
        ["kd", "–", "–", "2.50", "62.50"],
        ["<ods>", "–", "–", "1.25", "–"],
    ]
    assert re.findall("<b>(.*?)</b>", section) == ["1.25"]
    assert PROTOCOL in page.text
    titles = [text.replace("\N{NO-BREAK SPACE}", " ") for text in page.rows[5]]
    assert titles == ["chosen by", "on inputs", "order", "NLL of 1", "NLL of 2"]
    assert page.rows[6:] == [
        ["NLL", "validation", "0 1", "0.5000", "0.2500"],
        ["mutual errors", "validation", "1 0", "0.7500", "0.2500"],
        ["mutual errors", "kd", "1 0", "0.6250", "0.2500"],
    ]


def test_published_corruptions_have_figures_and_a_table_of_their_own(tmp_path):
    computed = corruption_rows()
    rows = [r for r in computed if r["corruption"] in ("none", "mean")]
    published = [{**r, "corruption": "X & C/mean"} for r in rows if r["severity"]]
    for row in published:
        row["accuracy"] -= 0.05
    path = write(tmp_path / "corruptions.json", computed + published)
    section = corruptions.corruptions_section(path, ROWS)
    assert list(section.figures) == [
        *("corruptions_accuracy", "corruptions_cnll"),
        *("corruptions_X & C_accuracy", "corruptions_X & C_cnll"),
    ]
    page = Page(section.html)
    assert "Published images of X & C" in page.text
    assert page.text.count(PROTOCOL) == 1
    first, second = page.rows[: len(MODELS) + 1], page.rows[len(MODELS) + 1 :]
    assert first[3][1:3] == ["91.00", "61.00"] and second[3][1:3] == ["91.00", "56.00"]
    # Of published ones alone, no figure is drawn without a corrupted image.
    clean = [row for row in rows if row["corruption"] == "none"]
    write(tmp_path / "corruptions.json", clean + published)
    alone = corruptions.corruptions_section(path, ROWS)
    assert len(alone.figures) == 2 and Page(alone.html).rows == second


def test_twenty_models_are_labelled_apart(tmp_path):
    names = ["DE-1", "DE-4", *(f"single_perturbation_{i:02}" for i in range(18))]
    curves = [
        lines.Line(name, [(s, 0.9 + i / 1e4) for s in range(6)], "#010101", False)
        for i, name in enumerate(names)
    ]
    svg = lines.line_figure("accuracy", "severity", curves)
    height = float(re.search(r'viewBox="0 0 \S+ (\S+)"', svg)[1])
    assert height > 20 * 16 and len(svg) < 200_000


def test_sections_without_evaluations(tmp_path):
    for section in (
        ood.ood_section(tmp_path / "ood.json", ROWS),
        corruptions.corruptions_section(tmp_path / "corruptions.json", ROWS),
        measures.measures_section(tmp_path, ROWS),
    ):
        assert section == ("", {}, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON: Expecting"),
        ("[]", "is damaged; accepted: a JSON object"),
        ("3", "is damaged; accepted: a JSON object"),
        ("null", "is damaged; accepted: a JSON object"),
        ('{"rows": {}}', "has no rows in it"),
        ('{"rows": ["a"]}', "has no rows in it"),
        (b"\xff", "is not valid JSON: 'utf-8'"),
    ],
)
def test_damaged_files_are_left_out(tmp_path, text, message):
    path = tmp_path / "measures.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for section in (
        ood.ood_section(path, ROWS),
        corruptions.corruptions_section(path, ROWS),
        measures.measures_section(tmp_path, ROWS),
    ):
        assert section.html == "" and f": measures.json {message}" in section.left_out


def test_damaged_rows_are_left_out(tmp_path):
    wrong = [None, "0.5", [], {}, True, float("nan")]
    rows = ood_rows()[:3]
    rows += [{"model": v, "set": v, "score": v, "auroc": "x"} for v in wrong]
    rows += [{}, {"model": ["a"], "set": {"b": 1}, "score": None, "auroc": 0.5}]
    page = Page(ood.ood_section(write(tmp_path / "ood.json", rows), ROWS).html)
    assert page.rows[1] == ["DE-1", "70.00", "75.00"]
    rows = [row for row in corruption_rows() if row["model"] in ("DE-1", "kd")]
    rows += [{"model": "b", "corruption": v, "severity": v} for v in wrong]
    rows += [{"model": "b", "corruption": "mean", "severity": v} for v in wrong]
    rows += [{"model": "c", "corruption": "mean", "severity": 2.5, "cnll": 1.0}]
    rows += [{"model": "d", "corruption": "none", "cnll": 1.0}]
    for row in rows[:3]:
        row["accuracy"] = None
    path = write(tmp_path / "corruptions.json", rows, protocol=3)
    section = corruptions.corruptions_section(path, ROWS).html
    names = [row[0] for row in Page(section).rows]
    assert names[:3] == ["model", "DE-1", "kd"] and names[-1] == "d"
    assert "c" not in names


def test_damaged_measures_are_left_out(tmp_path):
    wrong = [None, "0.5", [], {}, float("nan")]
    entries = [{"model": "kd", "augrc": 0.02}, {"augrc": 0.5}]
    entries += [{"model": "a", "augrc": v, "members": v} for v in wrong]
    choices = [{}, {"by_nll": 3}, {"by_nll": [0], "by_mutual_errors": [0]}]
    entries += [{"model": "b", "members": choice} for choice in choices]
    write(tmp_path / "measures.json", entries, protocol=3)
    rows = Page(measures.measures_section(tmp_path, ROWS).html).rows
    assert rows[1:] == [["kd", "2.00"], *[["a", "–"]] * 5, *[["b", "–"]] * 3]


def test_the_page_has_both(tmp_path):
    make_run(tmp_path, hostile=True)
    before = report.write_report(tmp_path).read_text()
    assert "Out of distribution" not in before and "corruptions" not in before
    write(tmp_path / "ood.json", ood_rows())
    write(tmp_path / "corruptions.json", corruption_rows())
    page = read_page(report.write_report(tmp_path))
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and names.count("svg") == 3 + 4 + 7 + 2
    assert HOSTILE in page.text and "Common corruptions" in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
