"""Tests of OOD detection against scikit-learn and by hand."""

import functools

import numpy as np
import pytest
import sklearn.metrics
from shifted_runs import (
    NUM_UNSEEN,
    STUDENTS,
    chosen,
    load,
    make_config,
    read_rows,
    stored,
)

from edp import data
from edp.errors import InputError
from edp.evaluation import ood
from edp.experiment import restore
from edp.experiment.create import create_experiment
from edp.metrics import uncertainty


def scikit_learn(inside, outside):
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    score = -np.concatenate([inside, outside]).astype(float)
    fpr, tpr, _ = sklearn.metrics.roc_curve(truth, score, drop_intermediate=False)
    return (
        sklearn.metrics.roc_auc_score(truth, score),
        sklearn.metrics.average_precision_score(truth, score),
        fpr[np.argmax(tpr >= 0.95)],
    )


def test_detection_is_that_of_scikit_learn(evaluated, unseen):
    rows = read_rows(evaluated, "ood.json")
    groups = {"DE-1": [[0], [1], [2]], "DE-3": [[0, 1, 2]]}
    seen = 0
    run = evaluated.run
    model, variables = restore.load_teachers(run, None)
    teacher_logits = functools.partial(
        restore.create_predict(restore.teacher_logits(run, None, model), 16), variables
    )
    for predictor in ("teachers", *STUDENTS):
        predict = load(evaluated, predictor)
        test = chosen(evaluated, NUM_UNSEEN)
        test_images = evaluated.data.dataset.test.images[test]
        inside, _ = stored(evaluated, predictor, "test", test)
        for name in ("noise", str(unseen)):
            foreign = data.open_foreign(name, size=NUM_UNSEEN, image_shape=(8, 8, 1))
            foreign = data.downsample(foreign[:], 2)
            outside = predict(foreign)
            of_student = {predictor: [range(len(inside))]}
            models = groups if predictor == "teachers" else of_student
            for model, members in models.items():
                pairs = [
                    (uncertainty.scores(inside[m]), uncertainty.scores(outside[m]))
                    for m in map(list, members)
                ]
                if predictor == "teachers":
                    logits = [teacher_logits(x) for x in (test_images, foreign)]
                    pairs = [
                        tuple(
                            s | uncertainty.logit_scores(z[m])
                            for s, z in zip(pair, logits, strict=True)
                        )
                        for pair, m in zip(pairs, map(list, members), strict=True)
                    ]
                for kind in pairs[0][0]:
                    row = rows[model, name, kind]
                    found = [row["auroc"], row["aupr"], row["fpr95"]]
                    expected = [scikit_learn(a[kind], b[kind]) for a, b in pairs]
                    np.testing.assert_allclose(found, np.mean(expected, 0), atol=1e-6)
                    seen += 1
    # Of probabilities, two scores of one network and four of several; two of logits,
    # checked for the teachers.
    assert len(rows) == 2 * (4 + 6 + 4 + 6)
    assert seen == 2 * (4 + 6 + 2 + 4)


def test_detection_by_hand():
    inside = [{"entropy": np.array([0.1, 0.2])}, {"entropy": np.array([0.5, 0.1])}]
    outside = [{"entropy": np.array([0.3, 0.9])}, {"entropy": np.array([0.2, 0.4])}]
    found = ood.detection(inside, outside)["entropy"]
    # All four pairs in order; then two of four.
    assert found["auroc"] == pytest.approx((1 + 0.5) / 2)
    # To accept all insiders is to accept none of the others; then both.
    assert found["fpr95"] == pytest.approx((0 + 1) / 2)
    assert found["aupr"] == pytest.approx((1 + (1 + 2 / 4) / 2) / 2)


def test_a_set_that_is_not_there_is_told_before_anything_is_written(tmp_path):
    config = make_config(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        create_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
