"""Targets from members at temperatures fitted on the validation images."""

import runpy
import shutil

import jax
import numpy as np
import pytest
from launching import ROOT, TINY
from untrained_runs import finish_teachers

from edp import metrics
from edp.errors import InputError
from edp.evaluation import analysis, results
from edp.evaluation.predictor import TEACHERS, Predictors
from edp.experiment import restore, settings
from edp.experiment.create import create_experiment
from edp.runtime import storage
from launch import distill


def tiny(**student):
    config = runpy.run_path(str(ROOT / TINY))["get_config"]("single_conf_ods")
    config.distill.num_epochs = 1
    config.evaluation.step_sizes = ()
    config.students.fitted = config.students.single_conf_ods
    config.students.fitted.update({"member_temperatures": "fitted", **student})
    del config.students.single_conf_ods
    return config


def distance(variables, others):
    """Returns the largest difference of two trees of arrays."""
    leaves = zip(*map(jax.tree.leaves, (variables, others)), strict=True)
    return max(float(abs(a - b).max()) for a, b in leaves)


def test_a_student_of_members_at_temperatures_of_their_own(tmp_path):
    experiment = create_experiment(tiny(), tmp_path / "run")
    run = experiment.run
    finish_teachers(run, 0)
    teachers = restore.teachers_record(run)["id"]
    path = run.workdir / "students/fitted/member_temperatures.json"

    # What is stored is what a training uses: with 1, it is that without temperatures.
    storage.write_json(path, {"teachers": teachers, "temperatures": [1.0, 1.0]})
    distill.distill_student(experiment, "fitted")
    _, ones = restore.load_student(run, None, "fitted")
    plain = create_experiment(tiny(member_temperatures="none"), tmp_path / "plain")
    finish_teachers(plain.run, 0)
    distill.distill_student(plain, "fitted")
    assert not (plain.run.workdir / "students/fitted" / path.name).exists()
    _, expected = restore.load_student(plain.run, None, "fitted")
    assert distance(ones, expected) < 1e-5

    # Those of other teachers are replaced by the fit to these.
    storage.write_json(path, {"teachers": "other", "temperatures": [1.0, 1.0]})
    (path.parent / "complete.json").unlink()
    for name in ("checkpoints", "variables"):
        shutil.rmtree(path.parent / name)
    distill.distill_student(experiment, "fitted")
    predictors = Predictors(experiment)
    of_teachers = results.load_predictions(experiment, predictors, TEACHERS)
    fitted = metrics.member_temperatures(
        of_teachers.validation_probs, of_teachers.validation_labels
    )
    assert storage.read_mapping(path) == {"teachers": teachers, "temperatures": fitted}
    assert min(abs(np.subtract(fitted, 1))) > 0.01
    _, variables = restore.load_student(run, None, "fitted")
    assert distance(variables, expected) > 1e-3

    # The analysis perturbs with the tempered teachers too.
    analysed = []
    for one in (experiment, plain):
        analysis.write_analysis(one, Predictors(one))
        record = storage.read_mapping(one.run.workdir / "analysis.json")
        analysed.append(
            {row["inputs"]: row["pairwise_kl"] for row in record["diversity"]}
        )
    changed = {
        name for name, value in analysed[0].items() if value != analysed[1][name]
    }
    assert changed == {"fitted"}


def test_a_damaged_file_is_refused(tmp_path):
    experiment = create_experiment(tiny(), tmp_path / "run")
    finish_teachers(experiment.run, 0)
    teachers = restore.teachers_record(experiment.run)["id"]
    path = experiment.run.workdir / "students/fitted/member_temperatures.json"
    storage.write_json(path, {"teachers": teachers, "temperatures": [1.0]})
    with pytest.raises(InputError, match=r"temperatures=\[1.0\]; accepted: 2 positive"):
        distill.distill_student(experiment, "fitted")


def test_perturbations_that_use_the_teachers_depend_on_the_temperatures():
    def of(**student):
        config = tiny(**student)
        chosen = settings.student_settings(config, "fitted")
        teachers = settings.teacher_dependencies(config)
        stage = settings.student_dependencies(config, chosen, teachers)
        return stage["distill"], settings.perturbation_settings(chosen)

    stage, perturbation = of()
    assert stage["member_temperatures"] == "fitted"
    assert perturbation["member_temperatures"] == "fitted"
    assert "member_temperatures" not in of(perturbation="mixup")[1]
    for part in of(member_temperatures="none"):
        assert "member_temperatures" not in part
