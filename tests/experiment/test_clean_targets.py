"""Targets of unperturbed students, computed once for all epochs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained_runs import finish_teachers

from edp import data
from edp.evaluation import costs
from edp.experiment import clean_targets, restore
from edp.experiment.create import create_experiment
from edp.experiment.run import Run
from edp.models import cpu_convolution
from edp.runtime import flops
from launch import distill
from tests.configs.tiny import get_config

PARAMS = {"kernel": np.zeros(1)}


def tiny(**settings):
    """Returns a configuration with one plain student, and settings of it or data."""
    config = get_config("single_conf_ods")
    config.evaluation.step_sizes = ()
    config.distill.num_epochs = 2
    config.data.crop_padding = 0
    config.data.update({k: v for k, v in settings.items() if k in config.data})
    own = {k: v for k, v in settings.items() if k not in config.data}
    config.students.plain = config.students.single_conf_ods
    config.students.plain.update({"perturbation": "none", **own})
    del config.students.single_conf_ods
    return config


@pytest.fixture
def optimised(monkeypatch):
    """Treats every training as long, so that targets are stored."""
    monkeypatch.setattr(Run, "trains_briefly", lambda *_: False)


def test_students_of_stored_and_of_computed_targets_are_equal(
    optimised, monkeypatch, tmp_path
):
    trained = {}
    for name in ("stored", "computed"):
        experiment = create_experiment(tiny(), tmp_path / name)
        finish_teachers(experiment.run, 0)
        called = []
        found = clean_targets.compute

        def compute(*args, found=found, name=name, called=called):
            targets = found(*args)
            called.append(targets)
            return targets if name == "stored" else None

        with monkeypatch.context() as patched:
            patched.setattr(clean_targets, "compute", compute)
            patched.setattr(clean_targets, "seconds", lambda _: 1e6)
            distill.distill_student(experiment, "plain")
        assert called[0] is not None
        record = restore.student_stage(experiment.run, "plain").record
        assert (record["train_seconds"] > 1e6) == (name == "stored")
        trained[name] = restore.load_student(experiment.run, None, "plain")[1]
    pairs = zip(*map(jax.tree.leaves, trained.values()), strict=True)
    assert max(float(abs(a - b).max()) for a, b in pairs) < 1e-5


def test_targets_are_the_logits_of_the_images_in_their_order(optimised, tmp_path):
    experiment = create_experiment(tiny(), tmp_path)
    run = experiment.run
    finish_teachers(run, 0)
    model, variables = restore.load_teachers(run, None)
    divisors = jnp.array([2.0, 0.5])
    assert clean_targets.seconds(experiment) == 0
    targets = clean_targets.compute(experiment, "plain", PARAMS, variables, divisors)
    assert clean_targets.seconds(experiment) > 0
    shape = clean_targets.like(experiment.run, "plain", PARAMS)
    assert (targets.shape, targets.dtype) == (shape.shape, shape.dtype)
    images = data.to_float(experiment.data.train[0][7:9])
    logits = restore.teacher_logits(run, None, model)(variables, images)
    expected = logits.swapaxes(0, 1) / divisors[:, None]
    np.testing.assert_allclose(targets[7:9], expected, atol=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {"perturbation": "conf_ods"},
        {"perturbation": "gaussian"},
        {"num_epochs": 1},
        {"flip": True},
        {"crop_padding": 1},
        {"stream": True},
    ],
)
def test_targets_that_differ_are_not_stored(setting, optimised, tmp_path):
    run = create_experiment(tiny(), tmp_path).run
    assert clean_targets.like(run, "plain", PARAMS) is not None
    run.config.data.update({k: v for k, v in setting.items() if k in run.config.data})
    section = {**run.students["plain"], **setting}
    changed = run._replace(students={"plain": section})
    assert clean_targets.like(changed, "plain", PARAMS) is None


def test_large_targets_are_not_stored(optimised, monkeypatch, tmp_path):
    experiment = create_experiment(tiny(), tmp_path)
    num_bytes = 4 * math.prod(clean_targets.like(experiment.run, "plain", PARAMS).shape)
    monkeypatch.setattr(clean_targets, "_MOST_BYTES", num_bytes - 1)
    assert clean_targets.like(experiment.run, "plain", PARAMS) is None


def test_short_trainings_store_no_targets(tmp_path):
    experiment = create_experiment(tiny(), tmp_path)
    assert clean_targets.like(experiment.run, "plain", PARAMS) is None


def test_the_cost_is_one_forward_pass_of_every_image(optimised, monkeypatch, tmp_path):
    run = create_experiment(tiny(), tmp_path).run
    stored = costs.count_student(run, "plain").training
    with monkeypatch.context() as patched:
        patched.setattr(clean_targets, "like", lambda *_: None)
        computed = costs.count_student(run, "plain").training
    teachers = restore.teachers_like(run, run.build_teacher())
    logits_fn = restore.teacher_logits(run, None, run.build_teacher())
    with cpu_convolution.plain_gradients():
        one = flops.flops(logits_fn, teachers, run.example)
    batch_size = run.students["plain"]["batch_size"]
    num_images = 2 * run.steps_per_epoch(batch_size) * batch_size
    assert computed - stored == (num_images - run.num_train) * one
