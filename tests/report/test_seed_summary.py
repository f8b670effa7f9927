"""Tests of summaries over seeds: means, diversity and notes of synthetic runs."""

import json
import math

import numpy as np
import pytest
from seed_runs import find, rewrite, without

from edp.report.seeds import runs, summary, sweep_results, tables


def test_means_over_seeds_by_hand(summed):
    assert [run["seed"] for run in summed["runs"]] == [0, 1, 2]
    de_1, de_2 = summed["models"][:2]
    # cNLL of 1, 2, 3 and of 0.5, 1, 1.5.
    assert de_1["cnll"]["by_seed"] == {"0": 1.0, "1": 2.0, "2": 3.0}
    assert de_1["cnll"]["mean"] == 2.0
    assert de_1["cnll"]["se"] == pytest.approx(1 / math.sqrt(3))
    assert de_1["train_accuracy"]["mean"] == pytest.approx(0.99)
    assert "train_accuracy" not in de_2 and "gap_closed" not in de_2
    assert (de_1["gap_closed_of_means"], de_2["gap_closed_of_means"]) == (0.0, 1.0)
    student = find(summed["models"], model="single_ods")
    cnll = student["cnll"]["by_seed"].values()
    shares = [(1 + s - v) / (0.5 + s / 2) for s, v in enumerate(cnll)]
    assert student["gap_closed"]["mean"] == pytest.approx(np.mean(shares))
    assert student["gap_closed_of_means"] == pytest.approx(2 - np.mean([*cnll]))
    assert student["gap_closed_of_means"] != pytest.approx(np.mean(shares), abs=0.01)
    assert student["train_seconds"]["mean"] == 11.0
    assert student["train_seconds"]["se"] == pytest.approx(1 / math.sqrt(3))
    assert student["logged_accuracy"]["mean"] == 1.25
    assert student["train_accuracy"]["mean"] == 0.75
    assert student["perturbation"] == "ods" and student["kind"] == "student"


def test_diversity_and_matches(summed):
    train, _, own, far = summed["diversity"]
    assert train["pairwise_kl"]["mean"] == pytest.approx(0.2)
    assert train["pairwise_kl"]["se"] == pytest.approx(0.1 / math.sqrt(3))
    assert own["inputs"] == "single_ods" and own["step_size"] == 0.02
    assert far["inputs"] == "single_ods@0.04"
    row = find(summed["students"], inputs="perturbed")
    assert row["match_kl"]["mean"] == pytest.approx(1.2)
    assert row["tempered_match_kl"]["mean"] == pytest.approx(0.1)


def test_what_only_some_runs_have(copies):
    rewrite(copies[1] / "config.json", without("students", "be_none"))
    rewrite(copies[1] / "results.json", lambda rows: [*rows[:3], rows[4]])
    (copies[1] / "analysis.json").unlink()
    rows = [{"model": "DE-2", "set": "noise|x", "score": "entropy", "auroc": 0.75}]
    (copies[0] / "ood.json").write_text(json.dumps({"rows": rows}))
    summed = summary.summarize_runs(runs.read_runs(copies))
    student = find(summed["models"], model="be_none")
    assert student["seeds"] == [0] and "se" not in student["cnll"]
    assert summed["notes"] == [
        "be_none exists only in the runs with seeds 0.",
        "No analysis.json in run1.",
        "No rows of ood.json in run1, so its means are over fewer seeds.",
    ]
    # Only one plain student is in both runs.
    assert summed["best_plain"]["model"] == "single_none"
    row = find(summed["comparisons"], model="be_none")
    assert row["seeds"] == [0] and "p" not in row["cnll"]
    assert summed["ood"][0]["auroc"] == {"mean": 0.75, "by_seed": {"0": 0.75}}
    text = tables.format_markdown(summed)
    assert "### noise\\|x" in text and "over the seeds (1 to 2)" in text


def test_means_over_fewer_seeds_are_noted(copies):
    rewrite(copies[1] / "results.json", without(-1, "gap_closed"))
    assert summary.summarize_runs(runs.read_runs(copies))["notes"] == [
        "gap_closed of single_ods is only the mean over the seeds 0, as other runs "
        "have none."
    ]


def test_shared_teachers_and_bounds_are_told(copies):
    def change(rows):
        for row in rows:
            row["seed"] = 0
        rows[-1]["temperature_at_bound"] = True

    rewrite(copies[1] / "results.json", change)
    rewrite(copies[1] / "config.json", lambda c: c.update(teachers_workdir="run0"))
    notes = summary.summarize_runs(runs.read_runs(copies))["notes"]
    assert "Some of these runs share their teachers" in notes[0]
    assert notes[1].endswith("unreliable, for single_ods.")


@pytest.mark.parametrize("imported", [True, False])
def test_imported_teachers_are_known_by_their_scores(copies, imported):
    """Their rows have the seeds of the runs, as if they were trained there."""
    for seed, path in enumerate(copies):
        nll = 0.9 if imported else 0.9 + seed / 10
        rewrite(path / "results.json", lambda rows, n=nll: rows[0].update(nll=n))
    notes = summary.summarize_runs(runs.read_runs(copies))["notes"]
    notes += sweep_results.summarize_groups(runs.read_groups(copies))["notes"]
    assert [note.partition(" share their teachers,")[0] for note in notes] == (
        ["Some of these runs", "Runs of one setting"] if imported else []
    )


def test_a_note_of_several_analyses_is_told_once(copies):
    for copy, notes in zip(copies, (["One."], ["One.", "Two."]), strict=True):
        rewrite(copy / "analysis.json", lambda a, notes=notes: a.update(notes=notes))
    assert summary.summarize_runs(runs.read_runs(copies))["notes"] == ["One.", "Two."]
