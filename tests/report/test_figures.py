"""Tests of the report's figures."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from report_pages import (
    Page,
    points,
    student,
)

from edp import metrics
from edp.report.figures import axes, basic, cnll
from edp.report.figures.svg import standalone
from edp.report.page import diversity, gallery, risk, sections


def test_spread_by_hand():
    # Two at the same place are shifted by half a gap each; the third is far away.
    assert axes.spread([5.0, 0.0, 5.0], 1.0, -9, 9) == [4.5, 0.0, 5.5]
    # Near the edge they are pushed inwards.
    assert axes.spread([0.0, 0.1], 1.0, 0.0, 9.0) == pytest.approx([0.0, 1.0])
    assert axes.spread([9.0, 8.9], 1.0, 0.0, 9.0) == pytest.approx([9.0, 8.0])


def test_spread_keeps_order_and_gap():
    values = np.random.default_rng(1).normal(size=12)
    places = np.array(axes.spread(values, 0.3, -2.0, 2.0))
    assert (np.argsort(places) == np.argsort(values)).all()
    assert np.diff(np.sort(places)).min() >= 0.3 - 1e-9
    assert places.min() >= -2 - 1e-9 and places.max() <= 2 + 1e-9


def test_reliability_draws_the_occupied_bins(tmp_path):
    # 20 inputs at confidence 0.95, half of them right, 10 at 0.6, right, and one at
    # 0.7, wrong: too few to judge.
    probs = np.array([[[0.95, 0.05], [0.95, 0.05], [0.4, 0.6]] * 10], np.float32)
    probs = np.append(probs, [[[0.7, 0.3]]], axis=1)
    labels = np.array([0, 1, 1] * 10 + [1])
    np.savez(tmp_path / "a.npz", test_probs=probs, test_labels=labels)
    page = sections.reliability_section(
        tmp_path, [student("a", 0.1, temperature=0.5)]
    ).html
    corner, size = np.array([38, 174]), np.array([164, -166])
    drawn = (points(page, "stroke: var(--s0); stroke-width: 1.6") - corner) / size
    np.testing.assert_allclose(drawn, [[0.6, 1], [0.95, 0.5]], atol=1e-4)
    # Before scaling its dot is filled, after it hollow.
    for fill in ("s0", "paper"):
        assert page.count(f"fill: var(--{fill}); fill-opacity: 0.3") == 1
    # At T = 1/2 the odds are squared: 0.36 to 0.16 and 0.9025 to 0.0025.
    drawn = points(
        page, "stroke-dasharray: 4.8,2.4; stroke-dashoffset: 0; stroke: var(--muted)"
    )
    expected = [[0.36 / 0.52, 1], [0.9025 / 0.905, 0.5]]
    np.testing.assert_allclose((drawn - corner) / size, expected, atol=1e-4)


def test_error_against_coverage_is_that_of_the_predictions(tmp_path):
    # The first member is right on the first input only, the second on the second only;
    # their mean is right on both and more confident on the first.
    members = [[[0.9, 0.1], [0.6, 0.4]], [[0.45, 0.55], [0.1, 0.9]]]
    labels = np.array([0, 1])
    np.savez(tmp_path / "teachers.npz", test_probs=members, test_labels=labels)
    np.savez(
        tmp_path / "kd.npz",
        test_probs=np.array([[[0.2, 0.8], [0.4, 0.6]]]),
        test_labels=labels,
    )
    rows = [
        {"model": f"DE-{m}", "kind": "ensemble", "num_members": m} for m in (1, 2)
    ] + [student("kd", 0.1)]
    section = risk.risk_section(tmp_path, rows)
    # The student's more confident prediction is wrong.
    (label,) = (a["aria-label"] for tag, a in Page(section.html).tags if tag == "svg")
    assert label == (
        "Error against coverage; area under the curve: "
        "DE-1 0.2500, DE-2 0.0000, kd 0.7500"
    )
    svg = section.figures["risk_coverage"]
    assert svg in section.html
    whole = points(svg, "stroke: var(--ink); stroke-width: 2.2")
    one = points(svg, "stroke: var(--muted); stroke-width: 1.6")
    kd = points(svg, "stroke: var(--s0); stroke-width: 1.3")
    # At half and at full coverage.
    for drawn in (whole, one, kd):
        np.testing.assert_allclose(drawn[:, 0], [48 + 250 / 2, 48 + 250], atol=0.01)
    heights = np.array([drawn[:, 1] for drawn in (whole, one, kd)])
    above = (heights[0] - heights) / (heights[0, 0] - heights[2, 0])
    np.testing.assert_allclose(above, [[0, 0], [0, 0.5], [1, 0.5]], atol=1e-3)


def test_curves_of_coverage_are_thin_and_end_at_the_error(tmp_path):
    rng = np.random.default_rng(5)
    coverage, value = metrics.risk_coverage(rng.random(5000), rng.random(5000) < 0.7)
    curves = [
        risk.RiskCurve(f"student_number_{i:02d}", coverage, value, i, i % 2 == 0)
        for i in range(20)
    ]
    svg = risk.risk_coverage(curves)
    assert len(standalone(svg)) < 60_000
    drawn = points(
        risk.risk_coverage(curves[:1]), "stroke: var(--s0); stroke-width: 1.3"
    )
    assert len(drawn) == 120
    assert drawn[-1, 0] == pytest.approx(48 + 250, abs=0.01)
    # Each point is one of the whole curve.
    coverage = (drawn[:, 0] - 48) / 250
    expected = value[np.rint(coverage * 5000).astype(int) - 1]
    line = np.polyval(np.polyfit(expected, drawn[:, 1], 1), expected)
    np.testing.assert_allclose(drawn[:, 1], line, atol=0.02)


def test_bars_are_as_long_as_their_values():
    entries = [basic.Bar("a", 0.5, 1), basic.Bar("b", 0.2, 2)]
    svg = basic.bars("pairwise KL", entries)
    long, short = (np.ptp(points(svg, f"fill: var(--s{i})")[:, 0]) for i in (1, 2))
    assert short / long == pytest.approx(0.4)


def test_student_line_stands_where_its_value_is():
    levels = [
        cnll.Level("between", 0.25, 1.5, 0, False),
        cnll.Level("better than all", 0.1, 2, 1, True),
        cnll.Level("worse than one", 0.4, 0, 2, True),
    ]
    svg = cnll.cnll_by_ensemble_size([1, 2], [0.3, 0.2], levels)
    curve = points(svg, "stroke: var(--ink); stroke-width: 2;")
    lines = [points(svg, f"stroke: var(--s{i}); stroke-width: 1.6") for i in range(3)]
    heights = [line[:, 1].mean() for line in lines]
    middle, half = curve[:, 1].mean(), np.ptp(curve[:, 1]) / 2
    np.testing.assert_allclose(heights, middle + half * np.array([0, 3, -3]), atol=0.02)
    # Only the first meets the curve: half way along it.
    rings = re.findall(r'x="([\d.]+)" y="([\d.]+)" style="fill: var\(--paper\)', svg)
    np.testing.assert_allclose(np.array(rings, float), [curve.mean(axis=0)], atol=0.02)


def test_figures_say_their_values():
    levels = [cnll.Level("<a>", 0.25, 1.5, 0, True)]
    svg = cnll.cnll_by_ensemble_size([1, 2], [0.3, 0.2], levels)
    label = Page(svg).tags[0][1]["aria-label"]
    assert label == "Calibrated NLL: DE-1 0.3000, DE-2 0.2000, <a> 0.2500"
    entries = [basic.Bar("train", 0.004, None), basic.Bar("ods", 0.2, 1)]
    svg = basic.bars("disagreement rate", entries, percent=True)
    label = Page(svg).tags[0][1]["aria-label"]
    assert label == "disagreement rate: train 0.4 %, ods 20.0 %"


def test_a_figure_as_a_file_needs_no_page():
    drawn = basic.bars("a & <b>", [basic.Bar("é <i>", 0.5, 1)])
    text = standalone(drawn)
    root = ET.fromstring(text.encode())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == "a & <b>: é <i> 0.5"
    *_, width, height = map(float, drawn.split('"')[1].split())
    assert root.attrib["viewBox"] == f"-12 -12 {width + 24:g} {height + 24:g}"
    assert float(root.attrib["height"]) == height + 24
    paper = root[0].attrib
    assert paper["fill"] == "#fff" and float(paper["width"]) == width + 24
    assert "var(" not in text and "fill: #b9520f" in text
    assert [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")] == [
        *("é <i>", "0.5", "a & <b>")
    ]
    assert "font-weight: 700" in text and "DejaVu" in text.partition(">")[0]
    # Only the colours and the frame differ.
    assert text.count("<path") == drawn.count("<path") == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_image_uri_keeps_the_pixels(channels):
    values = np.random.default_rng(2).integers(0, 256, (8, 6, channels))
    uri = gallery.image_uri(values / 255)
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(raw)))
    np.testing.assert_array_equal(pixels.reshape(values.shape), values)
    large = gallery.image_uri(np.full((200, 100, channels), 2.0))
    raw = base64.b64decode(large.removeprefix("data:image/png;base64,"))
    picture = Image.open(io.BytesIO(raw))
    assert picture.size == (32, 64) and np.asarray(picture).min() == 255


def write_sweep(path):
    """An analysis of one perturbation at two step sizes and of one student."""
    clean = {"perturbation": None, "step_size": None}
    perturbed = {"perturbation": "ods"}
    student_row = {
        "model": "<be>",
        "inputs": "perturbed",
        "match_kl": 0.5,
        "tempered_match_kl": 0.5,
        "pairwise_kl": 0.25,
        "teacher_pairwise_kl": 0.75,
        "error": 0.125,
    }
    analysis = {
        "diversity": [
            {"inputs": "train", "pairwise_kl": 0.1, "error": 0.0} | clean,
            {"inputs": "test", "pairwise_kl": 0.4, "error": 0.2} | clean,
            {"inputs": "<be>", "pairwise_kl": 0.3, "error": 0.1, "step_size": 2 / 255}
            | perturbed,
            {"inputs": "<be>@1", "pairwise_kl": 0.2, "error": 0.05}
            | perturbed
            | {"step_size": 1 / 255},
            {"inputs": "<be>@2", "pairwise_kl": 0.5, "error": 0.3}
            | perturbed
            | {"step_size": 4 / 255},
        ],
        "students": [
            student_row,
            student_row | {"inputs": "test", "pairwise_kl": None},
        ],
    }
    path.write_text(json.dumps(analysis))
    return [student("<be>", 0.3, "ods")]


def test_diversity_is_drawn_against_the_step_size(tmp_path):
    rows = write_sweep(tmp_path / "analysis.json")
    section = diversity.diversity_section(tmp_path / "analysis.json", rows).html
    labels = [a["aria-label"] for tag, a in Page(section).tags if tag == "svg"]
    assert labels == [
        # Bars are of the student's own step alone.
        "pairwise KL: training inputs 0.1, test inputs 0.4, <be>: ods, η 2/255 0.3",
        "mean member error: training inputs 0.0 %, test inputs 20.0 %, "
        "<be>: ods, η 2/255 10.0 %",
        "pairwise KL by step size: training inputs 0.1; test inputs 0.4; "
        "<be> 0.2 at 1, 0.3 at 2, 0.5 at 4",
        "mean member error by step size: training inputs 0; test inputs 20; "
        "<be> 5 at 1, 10 at 2, 30 at 4",
    ]
    figure = section[section.index("Against the step size") :]
    curve, _ = re.findall(r'<path d="([^"]*)" [^>]*stroke: var\(--s0\)', figure)[::2]
    curve = np.array(re.findall(r"-?[\d.]+", curve), float).reshape(-1, 2)
    corner, width = np.array([48, 218]), 220
    steps, heights = ((curve - corner) * [1, -1]).T
    np.testing.assert_allclose(steps / steps[0], [1, 2, 4], rtol=1e-3)
    np.testing.assert_allclose(heights / heights[0], [1, 1.5, 2.5], rtol=1e-3)
    assert 0 < steps[0] < steps[2] < width


def test_table_of_students_and_their_teachers(tmp_path):
    rows = write_sweep(tmp_path / "analysis.json")
    section = diversity.diversity_section(tmp_path / "analysis.json", rows).html
    head, perturbed, test = Page(section).rows
    # Empty columns are left out, as is the tempered KL if it equals the KL.
    columns = ["KL", "pairwise KL", "teachers'", "error %"]
    assert [h.replace("\N{NO-BREAK SPACE}", " ") for h in head] == [
        "student",
        "inputs",
        *columns,
    ]
    values = ["0.5000", "0.2500", "0.7500", "12.50"]
    assert perturbed == ["<be>", "perturbed", *values]
    assert test == ["<be>", "test", values[0], "–", *values[2:]]
