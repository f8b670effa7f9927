"""Tests of the evaluation on corrupted images, with random weights."""

import shutil

import numpy as np
import pytest
from shifted_runs import (
    NUM_CORRUPTED,
    STUDENTS,
    chosen,
    evaluate,
    load,
    make_config,
    read_rows,
    stored,
)

from edp import metrics
from edp.data import corruptions as image_corruptions
from edp.errors import InputError
from edp.evaluation import results
from edp.evaluation.predictor import Predictors
from edp.experiment import validate
from edp.experiment.create import create_experiment


def test_clean_rows_are_the_results_on_the_same_images(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    indices = chosen(evaluated, NUM_CORRUPTED)
    temperatures = {
        row["model"]: row["temperature"]
        for row in results.collect_rows(evaluated, Predictors(evaluated))
    }
    for model, name in (("DE-3", "teachers"), ("plain", "plain"), ("be", "be")):
        probs, labels = stored(evaluated, name, "test", indices)
        pooled = probs.astype(float).mean(0)
        row = rows[model, "none", 0]
        assert row["accuracy"] == np.mean(pooled.argmax(-1) == labels)
        nll = -np.log(pooled[np.arange(len(labels)), labels]).mean()
        assert row["nll"] == pytest.approx(nll, rel=1e-6)
        calibrated = metrics.apply_temperature(pooled, temperatures[model])
        expected = metrics.nll(calibrated, labels)
        assert row["cnll"] == pytest.approx(expected, rel=1e-6)
        assert row["ece"] == pytest.approx(metrics.ece(pooled, labels), abs=1e-6)


def test_images_are_corrupted_at_full_size(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    indices = chosen(evaluated, NUM_CORRUPTED)
    full = evaluated.data.dataset.full_test.images[indices]
    assert full.shape[1:] == (8, 8, 1)
    predict = load(evaluated, "teachers")
    for name, severity in (("contrast", 5), ("gaussian_noise", 2)):
        images = image_corruptions.corrupt(name, full, severity)
        images = images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4)) / 255
        probs = predict(np.float32(images))
        labels = evaluated.data.dataset.test.labels[indices]
        members = [metrics.nll(p, labels) for p in probs]
        # Bytes are rounded, and these means are not.
        row = rows["DE-3", name, severity]
        assert row["nll"] == pytest.approx(metrics.nll(probs.mean(0), labels), rel=1e-2)
        row = rows["DE-1", name, severity]
        assert row["nll"] == pytest.approx(np.mean(members), rel=1e-2)
        clean = rows["DE-1", "none", 0]["nll"]
        assert abs(row["nll"] - clean) > 3e-2 * clean or name != "contrast"


def test_one_network_is_the_mean_over_the_members(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    probs, labels = stored(
        evaluated, "teachers", "test", chosen(evaluated, NUM_CORRUPTED)
    )
    fitted = [
        metrics.fit_temperature(p, y).temperature
        for validation, y in [stored(evaluated, "teachers", "validation")]
        for p in validation
    ]
    scores = {
        "accuracy": [metrics.accuracy(p, labels) for p in probs],
        "nll": [metrics.nll(p, labels) for p in probs],
        "ece": [metrics.ece(p, labels) for p in probs],
        "cnll": [
            metrics.nll(metrics.apply_temperature(p, t), labels)
            for p, t in zip(probs, fitted, strict=True)
        ],
    }
    for key, values in scores.items():
        assert np.std(values) > 0
        found = rows["DE-1", "none", 0][key]
        assert found == pytest.approx(np.mean(values), rel=1e-6)


def test_mean_rows_are_means_over_corruptions(evaluated):
    rows = read_rows(evaluated, "corruptions.json")
    models = ("DE-1", "DE-3", *STUDENTS)
    assert len(rows) == len(models) * (1 + 2 * 5 + 5)
    for model in models:
        for severity in image_corruptions.SEVERITIES:
            both = [
                rows[model, n, severity]
                for n in evaluated.run.config.evaluation.corruptions
            ]
            for key in ("accuracy", "nll", "cnll", "ece"):
                expected = np.mean([row[key] for row in both])
                assert rows[model, "mean", severity][key] == pytest.approx(expected)


def test_published_corruptions_are_scored_beside_the_computed(
    evaluated, unseen, tmp_path
):
    directory = shutil.copytree(evaluated.run.workdir, tmp_path / "run")
    full = evaluated.data.dataset.full_test
    for name in ("contrast", "fog"):
        images = [
            image_corruptions.corrupt(name, full.images, severity)
            for severity in image_corruptions.SEVERITIES
        ]
        (tmp_path / "Digits-C").mkdir(exist_ok=True)
        np.save(tmp_path / "Digits-C" / f"{name}.npy", np.concatenate(images))
    labels = tmp_path / "Digits-C" / "labels.npy"
    np.save(labels, np.tile(full.labels, 5))
    names = ("contrast", "gaussian_noise", f"{tmp_path}/Digits-C/")
    config = make_config(unseen, corruptions=names)
    validate.check(config)
    before = read_rows(evaluated, "corruptions.json")
    experiment = create_experiment(config, directory)
    evaluate(experiment)
    rows = read_rows(experiment, "corruptions.json")
    assert before.items() <= rows.items()
    added = {key[1] for key in rows.keys() - before.keys()}
    assert added == {f"Digits-C/{name}" for name in ("contrast", "fog", "mean")}
    for key, row in before.items():
        if key[1] == "contrast":
            one, other, mean = (
                rows[key[0], f"Digits-C/{name}", key[2]]
                for name in ("contrast", "fog", "mean")
            )
            for score in ("accuracy", "nll", "cnll", "ece"):
                assert one[score] == row[score]
                assert mean[score] == pytest.approx((one[score] + other[score]) / 2)
    # Keyed by their content; and faults are found as the run is opened.
    np.save(labels, np.tile((full.labels + 1) % 10, 5))
    evaluate(create_experiment(config, directory))
    key = ("plain", "Digits-C/contrast", 3)
    assert read_rows(experiment, "corruptions.json")[key] != rows[key]
    np.save(labels, np.tile(full.labels + 1, 5))
    with pytest.raises(InputError, match=r"labels\.npy has labels 1 to 10"):
        create_experiment(config, directory)
    np.save(labels, np.tile(full.labels, 5))
    config.evaluation.corruptions = (*names, "other/Digits-C")
    with pytest.raises(InputError, match="two folders named 'Digits-C'"):
        create_experiment(config, directory)
