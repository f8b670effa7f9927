"""Tests of the rows of results with soft labels, and of kept predictions."""

import collections
from types import SimpleNamespace

import numpy as np
import pytest
from shifted_runs import stored

from edp import data
from edp.evaluation import predictions, results
from edp.evaluation.predictor import Predictors


def test_soft_labels_of_one_class_each_are_the_labels(evaluated):
    test = evaluated.data.dataset.test
    soft = np.eye(10)[test.labels]
    of_people = evaluated._replace(data=evaluated.data._replace(soft_labels=soft))
    rows = results.collect_rows(of_people, Predictors(of_people))
    assert len(rows) == 5
    for row in rows:
        assert row["soft_nll"] == pytest.approx(row["nll"])
        assert row["soft_kl"] == pytest.approx(row["nll"], abs=1e-9)
    probs, labels = stored(evaluated, "plain", "test")
    missing = 1 - probs[0, np.arange(len(labels)), labels].mean()
    (plain,) = (row for row in rows if row["model"] == "plain")
    assert plain["soft_tv"] == pytest.approx(missing, rel=1e-5)
    assert "soft_nll" not in results.collect_rows(evaluated, Predictors(evaluated))[0]


class Networks(collections.UserDict):
    """Predicts [[[share, 1 - share]]]; the data are named by a digest."""

    def __init__(self, share, digest):
        probs = np.array([[[share, 1 - share]]])
        super().__init__(plain=SimpleNamespace(predict=lambda images: probs))
        self.records = {"plain": {"id": "one training"}}
        self.data_digests = {"test": digest}


def test_predictions_of_an_interrupted_evaluation_are_made_again(tmp_path, monkeypatch):
    split = data.Split(np.zeros((1, 2, 2, 1)), np.zeros(1, int))
    experiment = SimpleNamespace(
        run=SimpleNamespace(workdir=tmp_path),
        data=SimpleNamespace(dataset=SimpleNamespace(validation=split, test=split)),
    )

    def load(share, digest):
        found = results.load_predictions(experiment, Networks(share, digest), "plain")
        return found.test_probs[0, 0, 0]

    assert load(0.25, "a") == load(0.5, "a") == 0.25
    save = predictions.save_predictions

    def end_after(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predictions, "save_predictions", end_after)
        load(0.75, "b")
    # Back to the first data: the file is of the second.
    assert load(0.25, "a") == 0.25
