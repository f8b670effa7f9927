"""Tests of paired comparisons of students over seeds."""

import math

import numpy as np
import pytest
from scipy import stats
from seed_runs import find, make_predictions, make_run

from edp.evaluation import scoring
from edp.report.evidence import Scored
from edp.report.seeds import comparisons, runs, summary, tables


def test_differences_are_paired(summed):
    made = {
        name: [make_predictions(s, x) for s in range(3)]
        for name, x in (("single_none", 1.0), ("single_ods", 2.2))
    }

    def scores(predictions):
        arrays = [a[0] if a.ndim == 3 else a for a in predictions]
        return scoring.scores(*arrays)

    ours, theirs = ([scores(p) for p in made[n]] for n in ("single_ods", "single_none"))
    row = find(summed["comparisons"], baseline="single_none", model="single_ods")
    for metric in ("cnll", "accuracy"):
        differences = [a[metric] - b[metric] for a, b in zip(ours, theirs, strict=True)]
        found = row[metric]
        assert list(found["by_seed"].values()) == pytest.approx(differences)
        assert found["mean"] == pytest.approx(np.mean(differences))
        expected = np.std(differences, ddof=1) / math.sqrt(3)
        assert found["se"] == pytest.approx(expected)
        expected = stats.ttest_rel(
            *([r[metric] for r in rows] for rows in (ours, theirs))
        )
        assert found["p"] == pytest.approx(expected.pvalue)
        low, high = found["interval"]
        assert low < found["mean"] < high
    # Seeds are averaged for each image before images are resampled.
    correct = np.mean(
        [
            (a.test_probs[0].argmax(-1) == a.test_labels)
            - 1.0 * (b.test_probs[0].argmax(-1) == b.test_labels)
            for a, b in zip(made["single_ods"], made["single_none"], strict=True)
        ],
        axis=0,
    )
    rng = np.random.default_rng(0)
    means = [correct[rng.integers(50, size=50)].mean() for _ in range(10_000)]
    expected = np.percentile(means, [2.5, 97.5])
    assert row["accuracy"]["interval"] == pytest.approx(expected.tolist())


def test_the_best_plain_student_is_chosen_on_validation(summed):
    # be_none has the stronger signal; single_ods, still stronger, is not plain.
    best = summed["best_plain"]
    assert best["model"] == "be_none"
    of = [make_predictions(seed, 2.0) for seed in range(3)]
    swapped = [(p.validation_probs[0], p.validation_labels) for p in of]
    expected = [scoring.scores(*split, *split)["cnll"] for split in swapped]
    assert best["validation_cnll"]["mean"] == pytest.approx(np.mean(expected))
    pairs = [(row["baseline"], row["model"]) for row in summed["comparisons"]]
    assert pairs == [
        ("single_none", "be_none"),
        ("single_none", "single_ods"),
        ("be_none", "single_none"),
        ("be_none", "single_ods"),
    ]
    there = find(summed["comparisons"], baseline="be_none", model="single_none")
    back = find(summed["comparisons"], baseline="single_none", model="be_none")
    assert there["cnll"]["mean"] == -back["cnll"]["mean"]


def test_students_of_different_seeds_are_compared_on_those_they_share():
    """Seed 1 is hard: the mean of `b` is the higher one, though it is better."""

    def choose(**cnlls):
        scored = {
            name: {seed: Scored(cnll, np.zeros(3), np.zeros(3)) for seed, cnll in of}
            for name, of in cnlls.items()
        }
        return comparisons.best_plain(scored, list(scored))

    of_a, of_b = [(0, 0.5), (2, 1.0)], [(2, 0.9), (1, 1.5)]
    best = choose(a=of_a, b=of_b)
    assert best["model"] == "b"
    assert best["validation_cnll"]["by_seed"] == {"2": 0.9, "1": 1.5}
    # Without a shared seed, or with fewer seeds, there is no better comparison.
    assert choose(a=of_a, b=[(1, 0.9), (3, 1.5)])["model"] == "a"
    assert choose(a=of_a, b=of_b[:1])["model"] == "a"


def test_identical_students_differ_by_exactly_nothing(tmp_path):
    path = make_run(tmp_path / "run", 0, strengths=(1.5, 1.5, 1.5))
    summed = summary.summarize_runs(runs.read_runs([path]), ["single_none"])
    for row in summed["comparisons"]:
        for metric in ("cnll", "accuracy"):
            nothing = {"mean": 0.0, "by_seed": {"0": 0.0}, "interval": [0.0, 0.0]}
            assert row[metric] == nothing
    # One seed has no standard error.
    assert "±" not in tables.format_terminal(summed)
    lines = tables.format_markdown(summed).splitlines()
    assert not any("±" in line for line in lines if line.startswith("| "))
