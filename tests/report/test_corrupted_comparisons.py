"""Tests of comparisons of students on corrupted images, over seeds."""

import json

import numpy as np
import pytest
from seed_runs import make_run

from edp import metrics
from edp.errors import InputError
from edp.evaluation import image_scores
from edp.report.seeds import runs, summary, tables


def write_corrupted(path, scores, **of_training):
    """Writes scores (NLL, correct) by image of students, as `launch.evaluate` does."""
    ids = {name: f"id of {name}" for name in scores}
    rows = [
        {"model": name, "corruption": "mean", "severity": severity}
        | {"cnll": np.mean(nll) + shift, "accuracy": np.mean(correct)}
        for name, (nll, correct) in scores.items()
        for severity, shift in ((1, -0.1), (2, 0.1))
    ]
    (path / "corruptions.json").write_text(
        json.dumps({"rows": rows, "made_from": {"predictors": ids}})
    )
    for name, (nll, correct) in scores.items():
        own = {"mean": image_scores.ImageScores(np.array(nll), np.array(correct))}
        training = of_training.get(name, ids[name])
        image_scores.save(image_scores.path_of(path, name), training, own)


def test_corrupted_images_are_paired(tmp_path):
    copies = [make_run(tmp_path / f"run{seed}", seed) for seed in (0, 1)]
    rng = np.random.default_rng(3)
    made = {
        (run, name): (rng.random(20), rng.integers(2, size=20) + 0.0)
        for run in range(2)
        for name in ("single_none", "single_ods")
    }
    for run, path in enumerate(copies):
        of_run = {n: made[run, n] for n in ("single_none", "single_ods")}
        write_corrupted(path, of_run)
    summed = summary.summarize_runs(runs.read_runs(copies), ["single_none"])
    (row,) = (
        r for r in summed["corrupted_comparisons"] if r["baseline"] == "single_none"
    )
    assert (row["corruption"], row["model"], row["seeds"]) == (
        "mean",
        "single_ods",
        [0, 1],
    )
    for i, metric in enumerate(("cnll", "accuracy")):
        by_image = np.float32(
            [made[r, "single_ods"][i] - made[r, "single_none"][i] for r in range(2)]
        )
        means = by_image.mean(1)
        assert list(row[metric]["by_seed"].values()) == pytest.approx(means, rel=1e-4)
        interval = metrics.bootstrap_intervals(by_image.mean(0)[:, None])[:, 0]
        assert row[metric]["interval"] == pytest.approx(interval.tolist(), rel=1e-4)
    text = tables.format_markdown(summed)
    table = text[text.index("### Against single_none, corrupted") :].splitlines()
    low, high = row["cnll"]["interval"]
    assert table[4].startswith("| single_ods ")
    assert f"[{low:+.4f}, {high:+.4f}]" in table[4]

    # Of another training of the student: left out. Of other sizes: refused.
    write_corrupted(copies[1], {"single_ods": made[1, "single_ods"]}, single_ods="old")
    summed = summary.summarize_runs(runs.read_runs(copies), ["single_none"])
    (row,) = (
        r for r in summed["corrupted_comparisons"] if r["baseline"] == "single_none"
    )
    assert row["seeds"] == [0]
    write_corrupted(copies[1], {"single_ods": (np.ones(19), np.ones(19))})
    with pytest.raises(InputError, match="'mean' of 19 and 20 images; accepted"):
        summary.summarize_runs(runs.read_runs(copies), ["single_none"])


def test_scores_of_an_interrupted_evaluation_are_refused(tmp_path):
    """With other settings, as many images and the same networks, before its rows."""
    path = make_run(tmp_path / "run0", 0)
    write_corrupted(path, {"single_ods": (np.full(20, 1.5), np.ones(20))})
    before = (path / "corruptions.json").read_bytes()
    for nll, correct in ((1.6, 1.0), (1.5, 0.5)):
        scores = np.full(20, nll), np.full(20, correct)
        write_corrupted(path, {"single_ods": scores})
        (path / "corruptions.json").write_bytes(before)
        (run,) = runs.read_runs([path])
        with pytest.raises(InputError, match="an evaluation was interrupted; remove"):
            run.corrupted("single_ods")
