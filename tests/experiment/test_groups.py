"""Teachers of several groups, with networks and settings of their own."""

import contextlib
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import untrained_runs

from configs import default
from edp import ensemble
from edp.errors import InputError
from edp.evaluation import results
from edp.evaluation.predictor import Predictors
from edp.experiment import (
    import_teachers,
    restore,
    settings,
    validate,
)
from edp.experiment import train_teachers as training
from edp.experiment.create import create_experiment
from edp.models import count_params
from edp.runtime import checkpoint, loop, storage
from edp.runtime.stage import Stage
from launch import distill, train_teachers
from tests.configs.tiny import get_config


def two_groups(**wide):
    config = get_config("single_conf_ods")
    for section in (config.teachers, config.distill):
        section.num_epochs = 1
    config.teachers.num_members = 3
    groups = config.teachers.groups
    groups.wide = default.group(
        config, {"name": "convnet", "width": 8}, **{"num_members": 2, **wide}
    )
    groups.narrow = default.group(config, num_members=1, learning_rate=0.02)
    return config


@contextlib.contextmanager
def never_stop():
    yield lambda: False


def test_groups_train_in_turn_and_teach_together(tmp_path):
    config = two_groups(num_members=2)
    experiment = create_experiment(config, tmp_path / "run")
    run = experiment.run
    assert list(run.groups) == ["narrow", "wide"] and run.num_kept == 3
    train_teachers.train_teachers(experiment)
    record = restore.teachers_record(run)
    assert record["groups"] == {
        name: restore.teachers_record(group) for name, group in run.groups.items()
    }
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored == json.loads(config.to_json())
    logs = [
        json.loads((tmp_path / "run/teachers" / part / "metrics.jsonl").read_text())
        for part in ("groups/narrow", "groups/wide", ".")
    ]  # of one epoch; two of the three networks are in the second
    assert logs[2]["loss"] == pytest.approx((logs[0]["loss"] + 2 * logs[1]["loss"]) / 3)
    assert (logs[2]["epoch"], logs[2]["step"]) == (1, 4)

    # The members, in the order of the groups' names, in this run and another.
    model, variables = restore.load_teachers(run, None)
    x = np.float32(experiment.data.dataset.test.images[:5]) / 255
    logits = restore.make_teachers(run, None, model, variables).all_logits(x)
    members = [
        ensemble.logits(model[name], variables[name], x) for name in ("narrow", "wide")
    ]
    np.testing.assert_allclose(logits, jnp.concatenate(members), atol=1e-5)
    other = get_config("single_conf_ods")
    other.model.width, other.seed = 6, 1  # another student of the same teachers
    other.teachers_workdir = str(tmp_path / "run")
    elsewhere = create_experiment(other, tmp_path / "other").run
    loaded = restore.load_teachers(elsewhere, None)
    again = restore.make_teachers(elsewhere, None, *loaded).all_logits(x)
    np.testing.assert_array_equal(again, logits)


def test_steps_that_groups_skip_are_counted(tmp_path):
    config = two_groups(learning_rate=1e30)
    config.nonfinite = "skip"
    config.teachers.num_epochs = 1
    experiment = create_experiment(config, tmp_path)
    train_teachers.train_teachers(experiment)
    record = restore.teachers_record(experiment.run)
    groups = record["groups"].values()
    assert record["skipped_steps"] == sum(r.get("skipped_steps", 0) for r in groups) > 0


@pytest.mark.long
def test_a_group_is_a_run_of_its_own_and_resumes(tmp_path):
    config = two_groups(optimizer="adamw", learning_rate=1e-3, mixup_alpha=0.5)
    experiment = create_experiment(config, tmp_path / "run")
    run = experiment.run

    # Stopped in the second group, of four steps each; the first is not trained again.
    asked = itertools.count()

    @contextlib.contextmanager
    def stop_later():
        yield lambda: next(asked) >= 6

    stage = Stage(run.teachers_dir, run.teacher_dependencies)
    with pytest.raises(loop.Interrupted, match=r"teachers/wide: saved at step 2 of 4"):
        training.fit_groups(experiment, stage, stop_later)
    narrow = restore.teachers_record(run.groups["narrow"])
    train_teachers.train_teachers(experiment)
    record = restore.teachers_record(run)
    assert record["groups"]["narrow"] == narrow
    _, variables = restore.load_teachers(run, None)

    # A group is what a run with its settings trains, without an interruption too.
    of_group = settings.group_config(config, "wide")
    alone = create_experiment(of_group, tmp_path / "alone")._replace(
        data=experiment.data
    )
    own = Stage(alone.run.teachers_dir, alone.run.teacher_dependencies)
    assert own.settings == storage.read_json(
        tmp_path / "run/teachers/groups/wide/settings.json"
    )
    training.fit_teachers(alone, own, never_stop)
    _, expected = restore.load_teachers(alone.run, None)
    jax.tree.map(np.testing.assert_array_equal, variables["wide"], expected)

    distill.distill_student(experiment, "single_conf_ods")
    found = results.collect_rows(experiment, Predictors(experiment))
    rows = {row["model"]: row for row in found}
    assert rows.keys() == {"DE-1", "DE-2", "DE-3", "single_conf_ods"}
    small, large = (
        count_params(ensemble.select(variables[name], 0)["params"])
        for name in ("narrow", "wide")
    )
    assert rows["DE-3"]["num_params"] == small + 2 * large
    assert rows["DE-1"]["num_params"] == round((small + 2 * large) / 3)
    # In passes of the narrow network, which is the student's: twice the channels.
    assert 1 + 2 * 2 < rows["DE-3"]["inference_cost"] < 1 + 2 * 4
    assert rows["DE-3"]["train_seconds"] == record["train_seconds"]


@pytest.mark.parametrize(
    ("wide", "message"),
    [
        ({"num_members": 1}, r"num_members=3 must be 2, .*1 \(narrow\) \+ 1 \(wide\)"),
        ({"learning_rate": -1.0}, r"groups\.wide\.learning_rate=-1\.0 must be"),
        ({"kind": "dropout"}, r"groups\.wide: .*dropout_rate=None must be above 0"),
        ({"model": {"width": 0}}, r"teachers\.groups\.wide\.model\.width=0"),
        ({"model": {"name": "mlp"}}, r"groups\.wide\.model\.name='mlp' must be one of"),
        ({"wdith": 1}, r"groups\.wide\.wdith is no setting; did you mean"),
    ],
)
def test_settings_of_groups_that_are_refused(wide, message):
    config = two_groups()
    own = dict(wide)
    config.teachers.groups.wide.model.update(own.pop("model", {}))
    config.teachers.groups.wide.update(own)
    with pytest.raises(InputError, match=message):
        validate.check(config)


def test_groups_are_imported_and_the_others_trained(tmp_path):
    experiment = create_experiment(two_groups(), tmp_path / "run")
    groups = experiment.run.groups
    members, saved = {"narrow": [], "wide": []}, {}
    for i, name in enumerate(("narrow", "wide", "wide")):
        init = functools.partial(groups[name].build_teacher().init, train=False)
        saved[i] = untrained_runs.draw(
            jax.eval_shape(init, jax.random.key(0), groups[name].example), i
        )
        members[name].append(f"{name}={tmp_path / str(i)}")
        checkpoint.save_variables(tmp_path / str(i), saved[i])

    (narrow,), wide = members["narrow"], members["wide"]
    small = narrow.replace("narrow=", "wide=")
    for wrong, words in (
        ([str(tmp_path / "0")], "GROUP=PATH per network, with GROUP one of narrow, w"),
        (["vit=a"], r"--members has 'vit=a'; accepted"),
        ([narrow, wide[0]], "names 1 networks of teachers/wide; accepted: 2"),
        ([wide[0], small], r"wide member 1 \(.*/0\) does not fit"),
    ):
        with pytest.raises(InputError, match=words):
            import_teachers.import_teachers(experiment, wrong)
        assert not experiment.run.teachers_dir.exists()

    import_teachers.import_teachers(experiment, wide)
    assert not (experiment.run.teachers_dir / "complete.json").exists()
    train_teachers.train_teachers(experiment)
    record = restore.teachers_record(experiment.run)
    assert "imported_from" in record["groups"]["wide"]
    seconds = record["groups"]["narrow"]["train_seconds"]
    assert record["train_seconds"] == seconds > 0
    directory = experiment.run.teachers_dir
    logs = [
        json.loads((place / "metrics.jsonl").read_text())
        for place in (directory, directory / "groups/narrow")
    ]
    assert logs[0] == logs[1]
    _, variables = restore.load_teachers(experiment.run, None)
    for m in range(2):
        own = ensemble.select(variables["wide"], m)
        jax.tree.map(np.testing.assert_array_equal, own, saved[m + 1])

    # All of them: nothing is left to train.
    other = experiment._replace(
        run=create_experiment(two_groups(), tmp_path / "other").run
    )
    import_teachers.import_teachers(other, [wide[1], narrow, wide[0]])
    _, variables = restore.load_teachers(other.run, None)
    jax.tree.map(
        np.testing.assert_array_equal,
        [ensemble.select(variables[n], 0) for n in ("narrow", "wide")],
        [saved[0], saved[2]],
    )
    assert not (other.run.teachers_dir / "metrics.jsonl").exists()


def test_groups_differ_in_their_seeds_and_not_by_each_other():
    config = two_groups()
    groups = settings.teacher_dependencies(config)["teachers"]["groups"]
    assert groups["narrow"]["seed"] != groups["wide"]["seed"]
    config.teachers.groups.more = default.group(config, num_members=1)
    again = settings.teacher_dependencies(config)["teachers"]["groups"]
    assert again["narrow"] == groups["narrow"] and "more" in again
