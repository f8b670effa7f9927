"""Targets from members at temperatures fitted on the validation images."""

import jax
import numpy as np
import pytest
from untrained_runs import finish_teachers

from edp import metrics
from edp.errors import InputError
from edp.evaluation import analysis, results
from edp.evaluation.predictor import TEACHERS, Predictors
from edp.experiment import member_temperatures, restore, settings
from edp.experiment.create import create_experiment
from edp.runtime import storage
from launch import distill
from tests.configs.tiny import get_config


def tiny(**student):
    config = get_config("single_conf_ods")
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


def fit(experiment):
    """Returns the temperatures fitted to the teachers' stored predictions."""
    known = results.load_predictions(experiment, Predictors(experiment), TEACHERS)
    return metrics.member_temperatures(known.validation_probs, known.validation_labels)


def test_a_student_of_members_at_temperatures_of_their_own(tmp_path):
    experiment = create_experiment(tiny(), tmp_path / "run")
    run = experiment.run
    finish_teachers(run, 0)
    # Those of other teachers are fitted again.
    path = run.workdir / "students/fitted/member_temperatures.json"
    storage.write_json(path, {"teachers": "other", "temperatures": [1.0, 1.0]})
    distill.distill_student(experiment, "fitted")
    fitted = fit(experiment)
    teachers = restore.teachers_record(run)["id"]
    assert storage.read_mapping(path) == {"teachers": teachers, "temperatures": fitted}
    assert min(abs(np.subtract(fitted, 1))) > 0.01


@pytest.mark.long
def test_temperatures_of_1_change_nothing_and_others_do(tmp_path):
    trained, analysed = {}, {}
    for name in ("fitted", "ones", "plain"):
        own = {"member_temperatures": "none"} if name == "plain" else {}
        experiment = create_experiment(tiny(**own), tmp_path / name)
        run = experiment.run
        finish_teachers(run, 0)
        path = run.workdir / "students/fitted/member_temperatures.json"
        if name == "ones":  # as stored before an interruption
            teachers = restore.teachers_record(run)["id"]
            storage.write_json(path, {"teachers": teachers, "temperatures": [1.0, 1.0]})
        distill.distill_student(experiment, "fitted")
        assert path.exists() == (name != "plain")
        trained[name] = restore.load_student(run, None, "fitted")[1]
        analysis.write_analysis(experiment, Predictors(experiment))
        rows = storage.read_mapping(run.workdir / "analysis.json")["diversity"]
        analysed[name] = {row["inputs"]: row["pairwise_kl"] for row in rows}
    assert distance(trained["ones"], trained["plain"]) < 1e-5
    assert distance(trained["fitted"], trained["plain"]) > 1e-3
    # The analysis perturbs with the tempered teachers too.
    differ = {n for n, v in analysed["fitted"].items() if v != analysed["plain"][n]}
    assert differ == {"fitted"}


def test_a_damaged_file_is_refused(tmp_path):
    experiment = create_experiment(tiny(), tmp_path / "run")
    finish_teachers(experiment.run, 0)
    teachers = restore.teachers_record(experiment.run)["id"]
    path = experiment.run.workdir / "students/fitted/member_temperatures.json"
    storage.write_json(path, {"teachers": teachers, "temperatures": [1.0]})
    with pytest.raises(InputError, match=r"temperatures=\[1.0\]; accepted: 2 positive"):
        distill.distill_student(experiment, "fitted")


def test_a_temperature_at_a_bound_is_warned_of(capsys):
    # Member 0 makes no error, and member 2 is surely wrong: no finite optimum.
    right, wrong = np.eye(2)[[0, 1]] * 0.8 + 0.1, np.eye(2)[[1, 0]] * 0.8 + 0.1
    uneven = np.array([[0.9, 0.1], [0.6, 0.4]])
    fitted = metrics.member_temperatures(np.stack([right, uneven, wrong]), [0, 1])
    member_temperatures._warn_of_bounds("fitted", fitted)
    assert "students.fitted.member_temperatures: those of the members 0, 2 are at" in (
        capsys.readouterr().err
    )
    member_temperatures._warn_of_bounds("fitted", fitted[1:2])
    assert not capsys.readouterr().err


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
