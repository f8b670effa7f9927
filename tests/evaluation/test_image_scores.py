"""Tests of the scores of each corrupted image."""

import json

import numpy as np
import pytest
from shifted_runs import NUM_CORRUPTED, STUDENTS, chosen, load, read_rows

from edp import data, metrics
from edp.data import corruptions as image_corruptions
from edp.evaluation import image_scores, results
from edp.evaluation.predictor import Predictors


def test_scores_of_each_image_are_means_over_corruptions(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    path = evaluated.run.workdir / "corruptions.json"
    ids = json.loads(path.read_text())["made_from"]["predictors"]
    labels = evaluated.data.dataset.test.labels[chosen(evaluated, NUM_CORRUPTED)]
    temperatures = {
        row["model"]: row["temperature"]
        for row in results.collect_rows(evaluated, Predictors(evaluated))
    }
    files = sorted(p.stem for p in (evaluated.run.workdir / "corruptions").iterdir())
    assert files == sorted(STUDENTS)  # members of the teachers have no file
    full = evaluated.data.dataset.full_test.images
    full = full[chosen(evaluated, NUM_CORRUPTED)]
    for name in STUDENTS:
        of_student = image_scores.path_of(evaluated.run.workdir, name)
        scores = image_scores.load(of_student, ids[name])
        assert list(scores) == ["mean"]
        # On average those of the rows.
        for field, key in (("nll", "cnll"), ("correct", "accuracy")):
            means = [rows[name, "mean", s][key] for s in image_corruptions.SEVERITIES]
            assert getattr(scores["mean"], field).shape == (NUM_CORRUPTED,)
            found = getattr(scores["mean"], field).mean()
            assert found == pytest.approx(np.mean(means), rel=1e-5)
        # Image by image.
        correct, nll, predict = 0, 0, load(evaluated, name)
        for corruption in evaluated.run.config.evaluation.corruptions:
            for severity in image_corruptions.SEVERITIES:
                images = image_corruptions.corrupt(corruption, full, severity)
                probs = predict(data.downsample(images, 2)).astype(float).mean(0)
                correct += (probs.argmax(-1) == labels) / 10
                probs = metrics.apply_temperature(probs, temperatures[name])
                nll -= np.log(probs[np.arange(NUM_CORRUPTED), labels]) / 10
        np.testing.assert_allclose(scores["mean"].correct, correct, atol=1e-6)
        np.testing.assert_allclose(scores["mean"].nll, nll, rtol=1e-4)
        assert image_scores.load(of_student, "another training") == {}
