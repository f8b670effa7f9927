"""Tests of the further measures of a run's networks against direct computation."""

from types import SimpleNamespace

import numpy as np
import pytest

from edp import metrics
from edp.evaluation import (
    analysis,
    disagreement,
    incremental,
    measures,
    prediction_sets,
)
from edp.evaluation.predictions import Predictions
from edp.evaluation.predictor import Predictor


def make(num_members, size=80, seed=0):
    rng = np.random.default_rng(seed)

    def split(n):
        labels = rng.integers(4, size=n)
        probs = rng.dirichlet(np.ones(5), size=(num_members, n)) * 0.7
        probs[:, np.arange(n), labels] += 0.3
        return probs.astype(np.float32), labels

    return Predictions(*split(size), *split(size)), split(40)


def fit(probs, labels):
    return prediction_sets.fit_thresholds(probs, labels, "aps", (0.8, 0.99))


def rows_of(predictions, teachers, calibration, groups, student=None):
    probs, labels = calibration
    predictor = Predictor("x", groups, None, student, lambda images: probs, None, None)
    split = type("Split", (), {"images": None, "labels": labels})()
    mean = teachers.test_probs.astype(np.float64).mean(axis=0)
    clear = metrics.least_ambiguous(metrics.predictive_entropy(mean), measures.LEFT_OUT)
    return measures._rows(
        predictions, mean, clear, predictor, split, fit, lambda teachers: {}
    )


def test_rows_of_the_teachers():
    predictions, calibration = make(3)
    groups = {"DE-1": [slice(m, m + 1) for m in range(3)], "DE-3": [slice(None)]}
    one, every = rows_of(predictions, predictions, calibration, groups)
    probs = predictions.test_probs.astype(np.float64)
    labels = predictions.test_labels
    aces = [metrics.adaptive_ece(member, labels) for member in probs]
    assert one["model"] == "DE-1"
    assert one["adaptive_ece"] == pytest.approx(np.mean(aces))
    mean = probs.mean(axis=0)
    assert every["classwise_ece"] == metrics.classwise_ece(mean, labels)
    by_class = every["by_class"]
    # The fifth class has no images.
    assert by_class["accuracy"][4] is None and len(by_class["nll"]) == 5
    assert by_class["nll"][2] == pytest.approx(
        metrics.nll(mean[labels == 2], labels[labels == 2])
    )
    assert every["worst_class_accuracy"] == min(by_class["accuracy"][:4])
    entropy = metrics.predictive_entropy(mean)
    clear = entropy <= np.sort(entropy)[71]
    assert clear.sum() == 72
    clear_accuracy = np.mean(mean[clear].argmax(1) == labels[clear])
    assert every["clear_accuracy"] == pytest.approx(clear_accuracy)

    members = every["members"]
    assert sorted(members["by_nll"]) == sorted(members["by_mutual_errors"]) == [0, 1, 2]
    first = members["by_nll"][0]
    assert members["test_nll_by_nll"][0] == pytest.approx(
        metrics.nll(probs[first], labels)
    )
    for name in ("by_nll", "by_mutual_errors"):
        last = members[f"test_nll_{name}"][-1]
        assert last == pytest.approx(metrics.nll(mean, labels))
    assert "members" not in one and "churn" not in every
    assert "prediction_sets" not in one


def test_sets_use_the_calibration_images_and_the_temperature_of_the_validation():
    predictions, (probs, labels) = make(2)
    (row,) = rows_of(predictions, predictions, (probs, labels), {"DE-2": [slice(None)]})

    def mean(p):
        return p.astype(np.float64).mean(axis=0)

    temperature, _ = metrics.fit_temperature(
        mean(predictions.validation_probs), predictions.validation_labels
    )
    scores = metrics.aps_scores(metrics.apply_temperature(mean(probs), temperature))
    own = np.sort(scores[np.arange(40), labels])
    fitted = row["prediction_sets"]
    # ⌈41 · 0.8⌉ = 33; 0.99 needs 99 images.
    assert fitted["thresholds"] == [{"coverage": 0.8, "threshold": own[32]}]
    assert fitted["score"] == "aps" and fitted["calibration_size"] == 40
    test = metrics.apply_temperature(mean(predictions.test_probs), temperature)
    sets = metrics.aps_scores(test) <= own[32]
    sets[np.arange(80), test.argmax(1)] = True
    assert row["set_size"] == pytest.approx(sets.sum(1).mean())
    covered = sets[np.arange(80), predictions.test_labels]
    assert row["set_coverage"] == pytest.approx(covered.mean())
    assert row["set_coverage_by_class"][4] is None


def test_churn_of_a_student_is_against_its_teachers():
    teachers, _ = make(3)
    student, calibration = make(1, seed=5)
    student = student._replace(test_labels=teachers.test_labels)
    groups = {"plain": [slice(None)]}
    (row,) = rows_of(student, teachers, calibration, groups, student="a student")
    old = teachers.test_probs.astype(np.float64).mean(0)
    new, labels = student.test_probs[0], teachers.test_labels
    gain = metrics.accuracy(new, labels) - metrics.accuracy(old, labels)
    assert row["good_churn"] - row["bad_churn"] == pytest.approx(gain)
    assert row["churn"] == np.mean(old.argmax(1) != new.argmax(1))
    assert "members" not in row


def test_teachers_that_err_together_on_perturbed_inputs():
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    probs = np.array([[wrong, right], [wrong, right], [right, wrong]])
    view = disagreement.View(None, np.array([0, 0]), probs)
    predictions = Predictions(None, None, 1 - probs, np.array([0, 0]))
    (row,) = analysis.member_rows({"single_ods": view}, predictions)
    assert row["inputs"] == "single_ods"
    assert row["mutual_errors"] == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0.5]]
    assert row["by_mutual_errors"] == [0, 2, 1]
    # The test images' label has 0.9 and 0.1 by the first member, 0.1 and 0.9 by the
    # last, and by the second as by the first.
    one, two = -np.log([0.9, 0.1]).mean(), -np.log([0.5, 0.5]).mean()
    every = -np.log([1.9 / 3, 1.1 / 3]).mean()
    found = row["test_nll_by_mutual_errors"]
    np.testing.assert_allclose(found, [one, two, every], atol=1e-9)


def test_set_scores_are_added_to_their_rows():
    measured = [{"model": "a", "set_coverage": 0.9, "set_size": 2.0}]
    rows = [{"model": "a", "nll": 1.0}, {"model": "b"}]
    measures.add_set_scores(rows, measured)
    assert rows == [
        {"model": "a", "nll": 1.0, "set_coverage": 0.9, "set_size": 2.0},
        {"model": "b"},
    ]


def test_measures_depend_on_the_soft_labels_themselves(monkeypatch, tmp_path):
    """Not on the path of their file, which may get other content."""

    def depends(soft_labels):
        test = SimpleNamespace(labels=np.zeros(2, int))
        dataset = SimpleNamespace(calibration=None, test=test)
        evaluation = {"soft_labels": "people.npy"}
        experiment = SimpleNamespace(
            run=SimpleNamespace(
                config=SimpleNamespace(evaluation=evaluation),
                workdir=tmp_path,
                num_members=2,
            ),
            data=SimpleNamespace(dataset=dataset, soft_labels=soft_labels),
        )
        return measures.write_measures(experiment, None)

    monkeypatch.setattr(
        incremental, "write_rows", lambda p, path, depends, *_, **__: depends
    )
    first = depends(np.array([[0.5, 0.5], [1.0, 0.0]]))
    assert first == depends(np.array([[0.5, 0.5], [1.0, 0.0]]))
    assert first != depends(np.array([[0.5, 0.5], [0.9, 0.1]]))
    assert depends(None)["soft_labels"] is None
