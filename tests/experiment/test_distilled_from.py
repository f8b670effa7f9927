"""Students are tied to the weights of their teachers."""

import contextlib
import shutil

import jax
import jax.numpy as jnp
import pytest
from tiny_configs import tiny_config
from untrained_runs import finish_student, finish_teachers

from edp.errors import InputError
from edp.evaluation.predictor import Predictors
from edp.experiment import distilled_from, restore, train
from edp.experiment.create import create_experiment
from edp.runtime import loop, storage
from launch import distill

NAME = "single_conf_ods"
OTHERS = (
    r"single_conf_ods was distilled from other teachers than those that .*teachers "
    r"holds now; put those back, or remove .*single_conf_ods to distil from these"
)


@pytest.fixture
def experiment(tmp_path):
    experiment = create_experiment(tiny_config(), tmp_path / "run")
    finish_teachers(experiment.run, 0)
    return experiment


def stop_at_once():
    return contextlib.nullcontext(lambda: True)


def begin(experiment):
    """Begins to distil the student, and stops before the first step."""
    stage = restore.student_stage(experiment.run, NAME)
    with pytest.raises(loop.Interrupted), stage.making():
        train.fit_student(experiment, NAME, stage, stop_at_once)
    return stage.path


def test_a_student_does_not_resume_on_other_teachers(experiment):
    stage = begin(experiment)
    before = sorted(path for path in stage.rglob("*"))
    teachers = experiment.run.teachers_dir
    shutil.rmtree(teachers)
    restore.student_stage(experiment.run, NAME)  # teachers are to be trained again
    finish_teachers(experiment.run, 1)
    with pytest.raises(InputError, match=OTHERS):
        distill.distill_student(experiment, NAME)
    assert sorted(path for path in stage.rglob("*")) == before
    # The same weights of another training are the same teachers.
    finish_teachers(experiment.run, 0)
    begin(experiment)
    # And a student removed is distilled from the present ones.
    finish_teachers(experiment.run, 1)
    shutil.rmtree(stage)
    begin(experiment)


def test_a_complete_student_of_other_teachers_is_refused(experiment):
    run = experiment.run
    finish_student(run, NAME, 0)
    stage = run.workdir / "students" / NAME
    distilled_from.record(run, stage)
    assert NAME in Predictors(experiment)
    finish_teachers(run, 1)
    for use in (
        lambda: distill.distill_student(experiment, NAME),
        lambda: Predictors(experiment),
        lambda: restore.load_student(run, None, NAME),
    ):
        with pytest.raises(InputError, match=OTHERS):
            use()
    storage.write_json(stage / "teachers.json", {})
    with pytest.raises(InputError, match=r"teachers\.json is damaged: weights is"):
        Predictors(experiment)
    # Earlier versions wrote none.
    (stage / "teachers.json").unlink()
    assert NAME in Predictors(experiment)


def test_teachers_of_an_earlier_version_are_known_by_their_training(experiment):
    run = experiment.run
    path = run.teachers_dir / "complete.json"
    former = {"id": "first", "num_params": 1, "train_seconds": 1.0}
    storage.write_json(path, former)
    stage = begin(experiment)
    assert storage.read_mapping(stage / "teachers.json") == {"weights": "first"}
    storage.write_json(path, {**former, "id": "second"})
    with pytest.raises(InputError, match=OTHERS):
        begin(experiment)


def test_the_digest_is_of_paths_dtypes_shapes_and_values():
    tree = {"params": {"a": jnp.arange(4.0), "b": jnp.zeros(2)}}
    of = distilled_from.digest(tree)
    assert len(of) == 64
    assert of == distilled_from.digest(jax.tree.map(jnp.copy, tree))
    a, b = tree["params"]["a"], tree["params"]["b"]
    for other in (
        {"a": a.at[3].set(3.0000002), "b": b},
        {"a": a.astype(jnp.bfloat16), "b": b},
        {"a": a.reshape(2, 2), "b": b},
        {"a": a, "c": b},
        {"a": a},
    ):
        assert distilled_from.digest({"params": other}) != of
