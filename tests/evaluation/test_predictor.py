"""Tests that evaluations share the networks that they load."""

import jax
import numpy as np
from shifted_runs import load, make_config
from untrained_runs import finish_student, finish_teachers

from configs import default
from edp.evaluation import analysis, corruptions, ood, results
from edp.evaluation.predictor import Predictors
from edp.experiment import restore
from edp.experiment.create import create_experiment
from edp.runtime import checkpoint


def test_each_network_is_loaded_and_compiled_once(unseen, tmp_path, monkeypatch):
    config = make_config(unseen, corruptions=("contrast",))
    config.students.tempered = default.student(config, student="single")
    config.students.again = default.student(config, student="single")
    config.students.tempered.temperature = 3.0
    experiment = create_experiment(config, tmp_path / "run")
    finish_teachers(experiment.run, 0)
    for seed, name in enumerate(config.students):
        finish_student(experiment.run, name, seed)
    checked, compiled = [], []
    check, compile_one = checkpoint.check_variables, restore.create_predict
    monkeypatch.setattr(
        checkpoint, "check_variables", lambda p: checked.append(p) or check(p)
    )
    monkeypatch.setattr(
        restore,
        "create_predict",
        lambda *a, **options: compiled.append(options) or compile_one(*a, **options),
    )
    predictors = Predictors(experiment)
    assert list(predictors) == ["teachers", *config.students] and not checked
    results.collect_rows(experiment, predictors)
    analysis.write_analysis(experiment, predictors)
    ood.write_detection(experiment, predictors)
    corruptions.write_robustness(experiment, predictors)
    assert len(checked) == len(set(checked)) == 5
    # The teachers' probabilities and logits; for `plain` (and `again`), `tempered` and
    # `be`, probabilities and scores.
    assert len(compiled) == 8
    assert all(options == {"runs_briefly": True} for options in compiled)
    # A shared program predicts with the student's own variables, kept on the host.
    images = experiment.data.dataset.test.images
    plain, again = (predictors[name] for name in ("plain", "again"))
    np.testing.assert_array_equal(
        again.predict(images), load(experiment, "again")(images)
    )
    assert np.abs(again.predict(images) - plain.predict(images)).max() > 1e-3
    leaves = jax.tree.leaves(again.variables)
    assert leaves and all(isinstance(leaf, np.ndarray) for leaf in leaves)
