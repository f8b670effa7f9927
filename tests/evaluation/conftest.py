"""Fixtures of the evaluation's tests: a run on OOD sets and corrupted images."""

import numpy as np
import pytest
from shifted_runs import STUDENTS, evaluate, initialise_teachers, make_config
from untrained_runs import finish_student

from edp.experiment.create import create_experiment


@pytest.fixture(scope="session")
def unseen(tmp_path_factory):
    """Writes an .npz of colour images that are larger than digits."""
    images = np.random.default_rng(1).integers(0, 90, (40, 10, 12, 3), np.uint8)
    path = tmp_path_factory.mktemp("sets") / "dark.npz"
    np.savez(path, test_images=images, test_labels=np.zeros(40, int))
    return path


@pytest.fixture(scope="session")
def evaluated(unseen, tmp_path_factory):
    """Evaluates a run of networks with random weights, for tests that only read it."""
    directory = tmp_path_factory.mktemp("run")
    experiment = create_experiment(make_config(unseen), directory)
    initialise_teachers(experiment.run, 0)
    for i, name in enumerate(STUDENTS):
        finish_student(experiment.run, name, i)
    evaluate(experiment)
    return experiment
