"""Tests of the analysis that commands write."""

import json
import math

import numpy as np
import pytest
from launching import snapshot, succeed, tiny

from edp import data

DIVERSITY = ("pairwise_kl", "disagreement_rate", "mutual_information")


def test_analysis_compares_inputs_and_shows_some(finished):
    rows = json.loads((finished / "analysis.json").read_text())["diversity"]
    inputs = [(row["inputs"], row["perturbation"], row["step_size"]) for row in rows]
    assert inputs == [
        ("train", None, None),
        ("test", None, None),
        ("be_disagreement", "disagreement", 1 / 255),
        ("single_conf_ods", "conf_ods", 0.02),
        ("be_disagreement@0.00392157", "disagreement", 1 / 255),
        ("be_disagreement@0.04", "disagreement", 0.04),
        ("single_conf_ods@0.00392157", "conf_ods", 1 / 255),
        ("single_conf_ods@0.04", "conf_ods", 0.04),
    ]
    # The same step gives the same input; a longer one another.
    values = [[row[name] for name in (*DIVERSITY, "variance")] for row in rows]
    assert values[2] == values[4] != values[5]
    with np.load(finished / "gallery.npz") as gallery:
        names = ["clean", "be_disagreement", "single_conf_ods"]
        assert gallery["names"].tolist() == names
        images, probs = gallery["images"], gallery["probs"]
        assert gallery["class_names"].tolist() == list("0123456789")
        assert gallery["labels"].shape == (2,)
    assert images.shape == (3, 2, 8, 8, 1) and probs.shape == (3, 2, 2, 10)
    assert images.min() >= 0 and images.max() <= 1
    lengths = np.sqrt(np.square(images[1:] - images[0]).sum(axis=(2, 3, 4)))
    radii = np.array([[1 / 255], [0.02]]) * math.sqrt(8 * 8)  # less where clipped
    assert (lengths > 0).all() and (lengths <= radii * (1 + 1e-5)).all()


def test_analysis_sets_students_beside_their_teachers(finished):
    analysis = json.loads((finished / "analysis.json").read_text())
    teachers = {row["inputs"]: row for row in analysis["diversity"]}
    rows = analysis["students"]
    assert [(row["model"], row["inputs"]) for row in rows] == [
        ("be_disagreement", "train"),
        ("be_disagreement", "test"),
        ("be_disagreement", "perturbed"),
        ("single_conf_ods", "train"),
        ("single_conf_ods", "test"),
        ("single_conf_ods", "perturbed"),
        ("single_none", "train"),
        ("single_none", "test"),
    ]
    for row in rows:
        same = row["inputs"] if row["inputs"] in teachers else row["model"]
        for name in (*DIVERSITY, "variance", "error"):
            assert row[f"teacher_{name}"] == teachers[same][name]
        # All temperatures are 1.
        assert row["tempered_match_kl"] == row["match_kl"] > 0
        several = row["model"] == "be_disagreement"
        for name in (*DIVERSITY, "variance", "member_match_kl"):
            assert (name in row) == several
    # From the predictions; the analysis uses 30 test images, stratified by class.
    with np.load(finished / "predictions/teachers.npz") as file:
        chosen = data.fixed_subset(file["test_labels"], "test_size", 30)
        target = file["test_probs"][:, chosen].astype(float)
    with np.load(finished / "predictions/be_disagreement.npz") as file:
        probs = file["test_probs"][:, chosen].astype(float)
        labels = file["test_labels"][chosen]
    by_member = (target * np.log(target / probs)).sum(-1).mean()
    np.testing.assert_allclose(rows[1]["member_match_kl"], by_member, rtol=1e-4)
    target, pooled = target.mean(0), probs.mean(0)
    expected = (target * np.log(target / pooled)).sum(-1).mean()
    np.testing.assert_allclose(rows[1]["match_kl"], expected, rtol=1e-4)
    assert rows[1]["error"] == np.mean(probs.argmax(-1) != labels)


@pytest.mark.long
def test_analysis_is_made_again_for_what_it_depends_on(copied, server):
    before = snapshot(copied)
    steps = "--config.evaluation.step_sizes=(0.04,)"
    succeed(server.run("evaluate", *tiny(copied), steps))
    after = snapshot(copied)
    assert after["gallery.npz"][1] == before["gallery.npz"][1]
    old, new = (json.loads(files["analysis.json"][1]) for files in (before, after))
    assert new["made_from"].pop("step_sizes") == [0.04]
    assert old["made_from"].pop("step_sizes") == [1 / 255, 0.04]
    assert new["made_from"] == old["made_from"]
    assert new["students"] == old["students"]
    kept = [row for row in old["diversity"] if "@0.00" not in row["inputs"]]
    assert new["diversity"] == kept
    # Files of an older version without that record are not reused either.
    (copied / "analysis.json").write_text('{"diversity": []}')
    succeed(server.run("evaluate", *tiny(copied), steps))
    assert snapshot(copied)["analysis.json"][1] == after["analysis.json"][1]
