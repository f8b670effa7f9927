"""Tests of whole runs with each kind of teachers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import tiny_config

from edp import ensemble, models
from edp.evaluation import results
from edp.evaluation.predictor import Predictors
from edp.experiment import restore, validate
from edp.experiment.create import create_experiment, record_run
from edp.runtime import checkpoint
from launch import distill, train_teachers

LONG = ("checkpoint", "dropout", "multiswag", "networks", "packed", "prior", "swag")


@pytest.mark.parametrize(
    "kind",
    ["snapshot", *(pytest.param(k, marks=pytest.mark.long) for k in LONG)],
)
def test_a_run_with_teachers_of_another_kind(kind, tmp_path):
    config = tiny_config(kind=kind)
    if kind == "networks":
        config.teachers.update({"kind": "dropout", "networks": 2})
        config.model.dropout_rate = 0.3
    if kind.endswith("swag"):
        config.teachers.update({"kind": "swag", "num_epochs": 3, "swag_start": 2})
        config.teachers.networks = 2 if kind == "multiswag" else 1
    if kind == "dropout":
        config.model.dropout_rate = 0.3
        config.teachers.select = "best"
    if kind == "packed":
        config.teachers.packed_width = 1.0
    if kind == "snapshot":  # with the settings that no other run of the tests has
        for section in (config.teachers, config.distill):
            section.optimizer, section.learning_rate = "adamw", 1e-3
            section.ema_decay, section.label_smoothing = 0.9, 0.1
        config.teachers.mixup_alpha = 0.5
    validate.check(config)
    experiment = create_experiment(config, tmp_path)
    run = experiment.run
    train_teachers.train_teachers(experiment)
    distill.distill_student(experiment, "single_conf_ods")
    rows = {
        row["model"]: row
        for row in results.collect_rows(experiment, Predictors(experiment))
    }
    assert rows.keys() == {"DE-1", "DE-2", "single_conf_ods"}
    # Some members come from one training; with dropout they may be one network too.
    trainings = 2 if kind in ("multiswag", "networks", "packed", "prior") else 1
    for name in ("train_seconds", "train_flops"):
        assert trainings * rows["DE-1"][name] == rows["DE-2"][name] > 0
    if kind == "packed":
        plain = rows["single_conf_ods"]["inference_flops"]
        share = rows["DE-1"]["inference_flops"] / plain
        assert 2 * rows["DE-1"]["inference_cost"] == rows["DE-2"]["inference_cost"]
        assert rows["DE-1"]["inference_cost"] == share < 0.5
    else:
        assert rows["DE-1"]["inference_cost"] == (2 if kind == "prior" else 1)
    kept = run.num_kept
    assert rows["DE-2"]["num_params"] == kept * rows["DE-1"]["num_params"]

    record = json.loads((tmp_path / "teachers" / "complete.json").read_text())
    model, variables = restore.load_teachers(run, None)
    kept = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(variables)}
    assert kept == {run.num_kept} == {1 if kind == "dropout" else 2}
    one = ensemble.select(variables, 0)
    counted = [one["params"]]
    if kind == "prior":
        network = one["prior"]["random_network"]
        counted += [network["variables"]["params"], network["deviation"]]
    assert record["num_params"] == models.count_params(counted)
    if kind in ("snapshot", "checkpoint"):
        assert record["selected_epoch"] == [1, 2]

    if kind.endswith("swag"):
        assert record["collected_epochs"] == 2

    # The predictions are those of the members that teach students; they differ.
    x = np.float32(experiment.data.dataset.test.images) / 255
    teachers = jax.jit(
        lambda v: restore.make_teachers(run, None, model, v).all_logits(x)
    )
    probs = jax.nn.softmax(teachers(variables))
    with np.load(tmp_path / "predictions" / "teachers.npz") as file:
        np.testing.assert_allclose(file["test_probs"], probs, atol=1e-5)
    # Member 0, as students contain it.
    source = restore.create_source(run)
    _, logits = jax.jit(source.features)(ensemble.select(variables, 0), x)
    np.testing.assert_allclose(jax.nn.softmax(logits), probs[0], atol=1e-5)
    assert np.abs(probs[0] - probs[1]).max() > 1e-3


@pytest.mark.long
def test_kinds_that_are_a_deep_ensemble_bit_for_bit(tmp_path):
    trained, logits = {}, {}
    for name, settings in (
        ("deep", {}),
        ("prior", {"kind": "prior", "prior_scale": 0.0}),
        ("dropout", {"kind": "dropout", "networks": 2}),
        ("packed", {"kind": "packed", "packed_width": 2.0}),
    ):
        experiment = create_experiment(tiny_config(**settings), tmp_path / name)
        train_teachers.train_teachers(experiment)
        model, trained[name] = restore.load_teachers(experiment.run, None)
        images = np.float32(experiment.data.dataset.test.images) / 255
        compute = jax.jit(restore.teacher_logits(experiment.run, None, model))
        logits[name] = compute(trained[name], images)
        np.testing.assert_allclose(logits[name], logits["deep"], atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, trained[name], trained["deep"])


def test_masks_follow_from_the_seed_that_the_teachers_were_trained_from(tmp_path):
    config = tiny_config(kind="dropout")
    config.model.dropout_rate = 0.3
    experiment = create_experiment(config, tmp_path / "a")
    run = experiment.run
    record_run(experiment)
    model = run.build_model()
    variables = ensemble.init(model, jax.random.split(run.key, 1), run.example)
    stage_settings = tmp_path / "a" / "teachers"
    checkpoint.save_variables(stage_settings / "variables", variables)
    dependencies = run.teacher_dependencies
    (stage_settings / "settings.json").write_text(json.dumps(dependencies))
    (stage_settings / "complete.json").write_text("{}")
    other = tiny_config()  # whose own teachers would be of another kind
    other.model.dropout_rate = 0.3
    other.seed, other.teachers_workdir = 7, str(tmp_path / "a")
    elsewhere = create_experiment(other, tmp_path / "b").run
    x = np.float32(experiment.data.dataset.test.images[:5]) / 255
    both = [
        restore.make_teachers(e, None, model, variables).all_logits(x)
        for e in (run, elsewhere)
    ]
    np.testing.assert_array_equal(*both)
