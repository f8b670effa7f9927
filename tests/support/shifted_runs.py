"""Evaluates untrained networks on OOD sets and corrupted images, and reads the rows."""

import functools
import json

import jax
import numpy as np

from configs import default
from edp import data, ensemble
from edp.evaluation import corruptions, ood
from edp.evaluation.predictor import Predictors
from edp.experiment import restore
from edp.runtime.stage import Stage

STUDENTS = {"plain": "single", "be": "batch_ensemble"}
NUM_UNSEEN, NUM_CORRUPTED = 25, 30


def make_config(unseen, **settings):
    """Configures three members and two students on digits of 4x4 pixels."""
    config = default.get_config()
    config.data.update(train_size=80, validation_size=40, test_size=60, downsample=2)
    config.model.width = 4
    config.teachers.num_members = 3
    for section in (config.teachers, config.distill):
        section.batch_size = 20
    config.evaluation.update(batch_size=16, diversity_size=20, gallery_size=1)
    config.evaluation.update(ood_sets=("noise", str(unseen)), ood_size=NUM_UNSEEN)
    config.evaluation.corruptions = ("contrast", "gaussian_noise")
    config.evaluation.corruption_size = NUM_CORRUPTED
    config.evaluation.update(settings)
    del config.students.single_none
    for name, kind in STUDENTS.items():
        config.students[name] = default.student(config, student=kind)
    return config


def initialise_teachers(run, seed):
    """Completes the teachers' stage with networks as they are initialised.

    A change of contrast alters their NLL, unlike that of the networks that
    `untrained_runs` draws.
    """
    model = run.build_model()
    keys = jax.random.split(jax.random.key(seed), run.num_members)
    variables = jax.jit(ensemble.init, static_argnums=0)(model, keys, run.example)
    stage = Stage(run.teachers_dir, run.teacher_dependencies)
    stage.begin()
    restore.complete(stage, variables, {"train_seconds": 1.0}, run.num_members)


def evaluate(experiment):
    """Runs the two evaluations tested here."""
    predictors = Predictors(experiment)
    ood.write_detection(experiment, predictors)
    corruptions.write_robustness(experiment, predictors)


def read_rows(experiment, file):
    """Returns (model, set or corruption, ...) -> row of a file of the workdir."""
    value = json.loads((experiment.run.workdir / file).read_text())
    return {
        tuple(v for v in row.values() if not isinstance(v, float)): row
        for row in value["rows"]
    }


def chosen(experiment, size):
    """Returns the indices of the test images used."""
    return data.fixed_subset(experiment.data.dataset.test.labels, "", size)


def load(experiment, name):
    """Returns images -> probabilities [S, N, K], compiled apart from `Predictors`."""
    probs_fn, variables = restore.load_predictor(experiment.run, None, name)
    return functools.partial(restore.create_predict(probs_fn, 16), variables)


def stored(experiment, name, part, indices=slice(None)):
    """Reads probabilities and labels from `predictions/`."""
    with np.load(experiment.run.workdir / "predictions" / f"{name}.npz") as file:
        return file[f"{part}_probs"][:, indices], file[f"{part}_labels"][indices]
