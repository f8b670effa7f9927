"""Tests of the ranking and the Pareto front, on synthetic rows."""

import itertools
import json
import math
import re

import numpy as np
import pytest

from edp import report
from edp.report.figures import pareto as pareto_figure
from edp.report.figures import pareto_labels
from edp.report.figures.pareto_labels import Point
from edp.report.figures.svg import standalone
from edp.report.page import pareto, ranking
from edp.report.seeds import tables

MEGA = 1e6


def ensemble(size, cnll, **fields):
    row = {"model": f"DE-{size}", "kind": "ensemble", "num_members": size}
    costs = {"inference_cost": size, "inference_flops": 6 * MEGA * size}
    return row | costs | {"num_params": 75_290 * size, "cnll": cnll} | fields


def student(name, cnll, passes=1.0, perturbation="mixup", kind="single", **fields):
    row = {"model": name, "kind": "student", "student": kind, "cnll": cnll}
    costs = {"inference_cost": passes, "inference_flops": 6 * MEGA * passes}
    costs |= {"num_params": 75_290, "train_flops": 4.8e12}
    return row | {"perturbation": perturbation, "dee": 1.5} | costs | fields


ROWS = [
    ensemble(1, 0.5, gap_closed=0.0),
    ensemble(2, 0.4, gap_closed=1.0),
    student("plain", 0.45, perturbation="none", gap_closed=0.5),
    student("wide", 0.35, 2.0, kind="batch_ensemble", gap_closed=1.5),
    student("best", 0.42, gap_closed=0.8),
    {"model": "failed", "kind": "student"},
]
OOD = [
    {"model": model, "set": name, "score": score, "auroc": auroc}
    for model, name, score, auroc in (
        ("plain", "noise", "max_probability", 0.9),
        ("plain", "noise", "predictive_entropy", 0.6),
        ("plain", "svhn", "predictive_entropy", 0.7),
        ("wide", "noise", "predictive_entropy", 0.95),
        ("wide", "noise", "mutual_information", 0.8),
        ("best", "noise", "pairwise_kl", 0.99),
        ("best", "svhn", "predictive_entropy", None),
    )
]


def without(keys, rows=ROWS):
    return [{k: v for k, v in row.items() if k not in keys} for row in rows]


def over_seeds(rows):
    """Returns rows as in a summary: quantities and facts."""
    wide = {"cnll": 0.01, "dee": 0.1, "gap_closed": 0.05}
    result = []
    for row in rows:
        found = {
            key: {"mean": row[key], "se": error, "by_seed": {"0": row[key]}}
            for key, error in wide.items()
            if key in row
        }
        found |= {"gap_closed_of_means": 0.25} if "gap_closed" in row else {}
        result.append(row | found)
    return result


# The ranking.


def test_students_are_ranked_among_the_ensembles():
    ranked = ranking.rank(ROWS, OOD)
    order = [(row["model"], row.get("rank")) for row in ranked]
    assert order == [
        ("wide", 1),
        ("DE-2", None),
        ("best", 2),
        ("plain", 3),
        ("DE-1", None),
    ]
    wide, _, best, plain, _ = ranked
    # Mutual information is preferred; a plain network only has its entropy.
    assert (wide["ood_score"], wide["auroc noise"]) == ("information", 0.8)
    assert (plain["ood_score"], plain["auroc noise"]) == ("entropy", 0.6)
    assert plain["auroc svhn"] == 0.7
    assert "ood_score" not in best and "rank" not in ROWS[2]
    assert ranking.rank(reversed(ROWS), OOD)[0]["model"] == "wide"


def test_columns_are_those_that_have_values():
    ranked = ranking.rank(ROWS, OOD)
    columns = {c.key: c for c in ranking.columns(ranked)}
    assert [c.title for c in columns.values()] == [
        *("model", "rank", "cNLL", "gap closed %", "DEE"),
        *("OOD noise %", "OOD svhn %", "OOD by", "cost"),
        *("MFLOP per image", "training TFLOP", "parameters, k"),
    ]
    texts = [column.text(ranked[0]) for column in columns.values()]
    assert texts == [
        *("wide", "1", "0.3500", "150.0", "1.50", "80.0", "–", "information"),
        *("2.00", "12.00", "4.80", "75.3"),
    ]
    old = ranking.rank(without({"inference_flops", "train_flops", "num_params"}), [])
    assert [c.title for c in ranking.columns(old)] == [
        *("model", "rank", "cNLL", "gap closed %", "DEE", "cost")
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([12.0, 3e9], (1.0, "")),
        ([999.0], (1.0, "")),
        ([1000.0, 2e7], (1e-3, "k")),
        ([4.1e9, 8.2e9], (1e-9, "G")),
        ([5e22], (1e-18, "E")),
    ],
)
def test_units_by_hand(values, expected):
    scale, prefix = ranking.unit(values)
    assert prefix == expected[1] and scale == pytest.approx(expected[0], rel=1e-12)


def test_the_ranking_is_on_the_page_and_in_markdown(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(ROWS))
    (tmp_path / "ood.json").write_text(json.dumps({"rows": OOD}))
    page = report.write_report(tmp_path).read_text()
    section = page[page.index(">Quality against cost<") :].partition("</section>")[0]
    named = re.findall(r'<th scope="row"[^>]*>(.*?)</th>', section)
    assert named == ["wide", "DE-2", "best", "plain", "DE-1"]
    assert section.index("<svg") < section.index("<table")
    markdown = (tmp_path / "results.md").read_text().partition("## Ranking")[2]
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [line[0] for line in lines[2:]] == ["wide", "DE-2", "best", "plain", "DE-1"]
    assert lines[2][2] == "**0.3500**" and lines[3][1] == "–"
    assert (tmp_path / "figures" / "pareto.svg").exists()


def test_without_students_there_is_no_ranking():
    assert ranking.format_ranking(ROWS[:2], OOD) == []
    assert ranking.ranking_section(ROWS[:2], OOD) == ""
    assert pareto.pareto_section([ROWS[-1]]).html == ""


def test_the_ranking_over_seeds():
    auroc = {"mean": 0.8, "se": 0.02, "by_seed": {}}
    ood = [{"model": "wide", "set": "noise", "score": "mutual_information"}]
    summary = {
        "runs": [{"name": "a", "seed": 0}],
        "notes": [],
        "models": over_seeds(ROWS),
        "comparisons": [],
        "corrupted_comparisons": [],
        "references": {},
        "diversity": [],
        "students": [],
        "ood": [ood[0] | {"auroc": auroc}],
        "corruptions": [],
        "measures": [],
    }
    markdown = tables.format_markdown(summary, ["pareto.svg"])
    text = markdown[markdown.index("## Ranking") :].partition("## Diversity")[0]
    (first,) = (line for line in text.splitlines() if line.startswith("| wide"))
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    assert cells == [
        *("wide", "1", "**0.3500 ± 0.0100**", "25.0", "1.50 ± 0.10"),
        *("80.0 ± 2.0", "information", "2.00", "12.00", "4.80", "75.3"),
    ]
    assert "(pareto.svg)" in text
    # Runs from before FLOP were counted.
    counts = {"inference_flops", "train_flops"}
    summary["models"] = without(counts, summary["models"])
    assert "FLOP per" not in tables.format_markdown(summary)


# The front.


def test_the_front_by_hand():
    points = [(2, 3), (1, 5), (3, 4), (2, 4), (4, 1), (5, 1), (1, 5), (1, 6)]
    # Equal points are all kept; of equal costs or equal values only the best is.
    assert pareto.front(points) == [1, 6, 0, 4]
    assert pareto.front([(1.0, 1.0)]) == [0] and pareto.front([]) == []


def test_no_point_dominates_the_front():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = [tuple(map(int, p)) for p in rng.integers(6, size=(12, 2))]
        unbeaten = {
            i
            for i, (cost, loss) in enumerate(points)
            if not any(
                a <= cost and b <= loss and (a, b) != (cost, loss) for a, b in points
            )
        }
        found = pareto.front(points)
        assert set(found) == unbeaten and len(found) == len(unbeaten)
        costs = [points[i][0] for i in found]
        assert costs == sorted(costs)


def test_points_have_the_costs_that_all_have():
    points, unit = pareto.read_points(ROWS)
    assert unit == "MFLOP per image"
    by_name = {p.name: p for p in points}
    assert by_name.keys() == {"DE-1", "DE-2", "plain", "wide", "best"}
    wide = Point("wide", 12.0, 0.35, 0.0, "batch_ensemble", False, True, 1)
    assert by_name["wide"]._replace(cost=pytest.approx(12.0)) == wide
    assert by_name["plain"].plain and by_name["DE-1"].kind is None
    assert {name for name, p in by_name.items() if p.on_front} == {"best", "wide"}
    # If one row has no FLOP, passes are used for all.
    some, unit = pareto.read_points([*ROWS[:-1], student("x", 1, inference_flops=None)])
    assert unit == "forward passes of one network"
    assert [p.cost for p in some] == [1, 2, 1, 2, 1, 1]
    costless = {"inference_flops", "inference_cost"}
    assert pareto.read_points(without(costless)) == ([], unit)
    assert {p.error for p in pareto.read_points(over_seeds(ROWS))[0]} == {0.01}


def many(sizes, letters=24):
    """Returns `sizes[i]` points at each cost i + 1."""
    rng = np.random.default_rng(1)
    rows = []
    for cost, size in enumerate(sizes, 1):
        rows += [
            student(f"{'student' * 4}"[: letters - 3] + f"{cost}{i:02d}", v, cost)
            for i, v in enumerate(0.3 + 0.1 * rng.random(size) / cost)
        ]
    return pareto.read_points(rows)[0]


@pytest.mark.parametrize("sizes", [(20, 1, 1, 14), (3,), (1, 1), (30, 30)])
def test_there_is_room_for_all_labels(sizes):
    points = sorted(many(sizes), key=lambda p: (p.cost, -p.cnll))
    groups = pareto_labels.near_groups(points)
    assert [len(group) for group in groups] == [*sizes]
    inner = pareto_labels.width(points, groups)
    assert 300 <= inner <= 420
    place = pareto_labels.placer(points, inner)
    labels = dict(pareto_labels.cut_labels(groups, place))
    height, (low, high) = pareto_labels.heights(points, groups)
    for group, after in itertools.pairwise(groups):
        start = place(group[-1]) + pareto_labels.lead(group)
        for point in group:
            assert (labels[point] == "") == point.on_front
            end = start + pareto_labels.LETTER * len(labels[point])
            assert end < place(after[0])
    for group in groups:
        free = height * (high - pareto_labels.floor(points, group)) / (high - low)
        rest = sum(not point.on_front for point in group)
        assert free >= pareto_labels.LINE * rest
        best = sum(point.on_front for point in group)
        assert height - free >= pareto_labels.FRONT_LINE * best


def test_near_points_are_labelled_together():
    points = [Point("a", c, 1.0, 0, "k", False, False) for c in (1, 1.002, 2, 4)]
    groups = pareto_labels.near_groups(points)
    assert [[p.cost for p in group] for group in groups] == [[1, 1.002], [2], [4]]
    place = pareto_labels.placer(points, 300)
    assert place(points[2]) == pytest.approx(150)
    assert pareto_labels.placer(points[:1], 340)(points[0]) == 20


def test_the_steps_are_at_the_values():
    svg = pareto_figure.pareto_figure(*pareto.read_points(ROWS))
    (path,) = re.findall(
        r'<path d="([^"]*)" [^>]*stroke: var\(--ink\); stroke-width: 1.6', svg
    )
    stairs = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
    # From best, 1 pass and 0.42, over to 2 passes, down to wide, and on to the edge.
    steps = np.diff(stairs, axis=0)
    steps = steps[steps.any(axis=1)]
    assert steps.shape == (3, 2)
    assert steps[0, 1] == steps[2, 1] == steps[1, 0] == 0
    assert steps[0, 0] > 0 and steps[1, 1] > 0 and steps[2, 0] == pytest.approx(20)
    (squares,) = re.findall(
        r'<path d="([^"]*)" [^>]*stroke-dasharray[^>]*stroke: var\(--muted\)', svg
    )
    ensembles = np.array(re.findall(r"-?[\d.]+", squares), float).reshape(-1, 2)
    np.testing.assert_allclose(ensembles[:, 0], stairs[[0, 1], 0], atol=0.02)
    # 0.1 between the ensembles, 0.07 between the stairs.
    ratio = np.ptp(ensembles[:, 1]) / steps[1, 1]
    assert ratio == pytest.approx(0.1 / 0.07, rel=1e-3)


def test_the_figure_says_what_it_shows_and_is_small():
    svg = pareto_figure.pareto_figure(*pareto.read_points(ROWS))
    label = re.search(r'aria-label="([^"]*)"', svg)[1]
    assert label.startswith("Calibrated NLL by MFLOP per image: DE-1 6 0.5000, ")
    assert label.endswith("On the front: best, wide")
    points = many((20, 1, 1, 14))
    assert len(standalone(pareto_figure.pareto_figure(points, "passes"))) < 150_000
    # A lone point, and points that are all alike.
    for rows in (ROWS[:1], [ROWS[0], student("same", 0.5)]):
        assert "<svg" in pareto.pareto_svg(rows)
    assert pareto.pareto_svg(ROWS[-1:]) is None
    assert math.isclose(points[0].cost, 6.0)
