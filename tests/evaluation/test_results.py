"""Tests of the rows of results with soft labels."""

import numpy as np
import pytest
from shifted_runs import stored

from edp.evaluation import results
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
