"""An evaluated run of untrained networks to export, and readers of its artifacts."""

import csv

import ml_collections
import numpy as np
from untrained_runs import finish_student, finish_teachers

from edp.evaluation import measures, results
from edp.evaluation.predictor import Predictors
from edp.experiment.create import create_experiment, record_run
from edp.runtime import storage
from tests.configs import tiny

NAMES = tuple(f"class {k}" for k in range(10))
TEMPERATURE = 0.7
# The start of a program that may import jax, numpy, flatbuffers and Pillow only.
WITHOUT_EDP = (
    "import sys\n"
    "for name in ('edp', 'flax', 'optax', 'orbax', 'chex', 'ml_collections',"
    " 'sklearn', 'absl'):\n"
    "    sys.modules[name] = None\n"
)


def create_evaluated(directory, kinds, **teachers):
    """Evaluates a run of networks with random weights, unless it is evaluated."""
    config = tiny.get_config()
    config.data.test_size = 256
    config.data.validation_size, config.data.calibration_size = 50, 10
    config.teachers.update(teachers)
    config.model.dropout_rate = 0.2 if "kind" in teachers else None
    default = config.students.single_none
    config.students = ml_collections.ConfigDict()
    for kind in kinds:
        config.students[kind] = default.copy_and_resolve_references()
        config.students[kind].student = kind
    experiment = create_experiment(config, directory)
    if (directory / "gallery.npz").exists():  # written last
        return experiment
    record_run(experiment)

    finish_teachers(experiment.run, 0)
    for kind in kinds:
        finish_student(experiment.run, kind, 0)
    # A temperature fitted to random networks would make all classes equally likely.
    predictors = Predictors(experiment)
    rows = results.collect_rows(experiment, predictors)
    rows = [{**row, "temperature": TEMPERATURE} for row in rows]
    for row in rows:
        row.pop("temperature_at_bound", None)
    measured = measures.write_measures(experiment, predictors)
    measures.add_set_scores(rows, measured)
    storage.write_json(directory / "results.json", rows)
    np.savez(directory / "gallery.npz", class_names=np.array(NAMES))
    return experiment


def read_csv(out):
    """Returns the rows of a file of predictions."""
    with out.open(newline="") as file:
        return list(csv.DictReader(file))
