"""Tests of the settings that each stage depends on, and of the validators."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from tiny_configs import tiny_config

from configs import default, digits
from edp.ensemble import teachers_from_functions
from edp.errors import InputError
from edp.experiment import preconditions, settings, validate
from edp.experiment.create import create_experiment
from edp.perturbations import create_perturbation
from edp.runtime.stage import Stage


def dependencies(config, name):
    teachers = settings.teacher_dependencies(config)
    student = settings.student_settings(config, name)
    return settings.student_dependencies(config, student, teachers)["distill"]


@pytest.mark.parametrize(
    ("name", "read", "unread"),
    [
        ("single_none", {"temperature", "alpha"}, {"step_size", "quantity"}),
        ("single_none", {"batch_size"}, {"random_members"}),
        ("single_gaussian", {"step_size"}, {"quantity", "random_members"}),
        ("single_conf_ods", {"step_size"}, {"quantity", "num_steps", "factor_init"}),
        ("single_disagreement", {"step_size", "quantity", "num_steps"}, {"milestones"}),
        ("single_disagreement", {"random_members"}, {"factor_init"}),
        ("be_none", {"factor_init"}, {"step_size", "step_length"}),
        ("single_none", {"rank_one_lr_factor"}, {"hydra_single_share"}),
        ("be_none", {"select"}, {"dirichlet_loss", "functional_samples"}),
    ],
)
def test_a_student_depends_on_what_it_reads(name, read, unread):
    chosen = dependencies(digits.get_config(), name)
    assert read <= chosen.keys()
    assert not unread & chosen.keys()


@pytest.mark.parametrize(
    ("kind", "read", "unread"),
    [
        ("latent_batch_ensemble", {"temperature", "alpha"}, {"factor_init"}),
        ("hydra", {"hydra_single_share", "alpha"}, {"dirichlet_loss"}),
        ("dirichlet", {"dirichlet_loss", "dirichlet_annealing"}, {"alpha"}),
        ("functional", {"functional_teachers"}, {"temperature", "factor_init"}),
        ("bridge", {"bridge_steps", "bridge_betas"}, {"temperature", "flow_width"}),
    ],
)
def test_a_kind_of_student_depends_on_its_own_settings(kind, read, unread):
    config = digits.get_config()
    config.students.single_none.student = kind
    chosen = dependencies(config, "single_none")
    assert read <= chosen.keys()
    assert not unread & chosen.keys()
    derived = {"num_members", "training_steps", "seed", "source"}
    assert not derived & chosen.keys()


def test_a_shared_default_concerns_only_those_who_read_it():
    before, after = digits.get_config(), digits.get_config()
    after.distill.step_size = 0.5
    for name in before.students:
        same = dependencies(before, name) == dependencies(after, name)
        assert same == name.endswith("_none")


def test_teachers_depend_neither_on_students_nor_on_how_data_are_read():
    before, after = digits.get_config(), digits.get_config()
    after.distill.alpha = 0.1
    after.data.data_dir = "/elsewhere"
    after.data.stream, after.data.num_workers = True, 3
    after.steps_per_dispatch = 5
    after.evaluation.batch_size = 7
    after.evaluation.ood_sets, after.evaluation.corruptions = ("noise",), ("all",)
    assert settings.teacher_dependencies(before) == settings.teacher_dependencies(after)
    after.teachers.num_members = 5
    assert settings.teacher_dependencies(before) != settings.teacher_dependencies(after)


@pytest.mark.parametrize(
    ("key", "right", "wrong", "words"),
    [
        (
            "ood_sets",
            [(), ("noise", "svhn_cropped"), ["a/folder"]],
            ["noise", ("noise", "noise"), ("",), (3,), None, ("digits",)],
            r"distinct names of sets, none of them 'digits'",
        ),
        (
            "corruptions",
            [(), ("all",), ["fog", "contrast"], ("all", "CIFAR-10-C"), ("./fog",)],
            ["all", ("all", "fog"), ("frost",), ("fog", "fog"), (["fog"],), None],
            r'\("all",\), or distinct names of gaussian_noise, .*or \(\)',
        ),
        ("ood_size", [1, 500], [0, 1.5, None], "an integer of at least 1"),
        ("corruption_size", [1, 500], [0, "all", None], "an integer of at least 1"),
    ],
)
def test_what_to_evaluate_on(key, right, wrong, words):
    values = digits.get_config().to_dict()
    for value in right:
        values["evaluation"][key] = value
        validate.check(ml_collections.ConfigDict(values))
    for value in wrong:
        values["evaluation"][key] = value
        with pytest.raises(InputError, match=rf"evaluation\.{key}=.* must be {words}"):
            validate.check(ml_collections.ConfigDict(values))


def test_soft_labels_are_not_for_streamed_images():
    config = digits.get_config()
    config.data.soft_labels = "labels.npy"
    validate.check(config)
    config.data.update(source="folder", path="images", stream=True)
    with pytest.raises(
        InputError, match=r"data\.soft_labels='labels\.npy' must be None for data\.st"
    ):
        validate.check(config)


def test_a_set_of_ones_own_is_not_unseen():
    values = digits.get_config().to_dict()
    values["data"] |= {"source": "tfds", "name": "cifar10"}
    values["evaluation"]["ood_sets"] = ("digits", "cifar100")
    validate.check(ml_collections.ConfigDict(values))
    values["evaluation"]["ood_sets"] = ("cifar10",)
    with pytest.raises(InputError, match="none of them 'cifar10'"):
        validate.check(ml_collections.ConfigDict(values))


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("bootstrap", True),
        ("kind", "dropout"),
        ("optimizer", "adamw"),
        ("ema_decay", 0.99),
        ("label_smoothing", 0.1),
        ("mixup_alpha", 0.4),
    ],
)
def test_what_was_not_a_setting_once_concerns_only_those_who_change_it(key, other):
    config = digits.get_config()
    before = settings.teacher_dependencies(config)
    assert key not in before["teachers"]
    config.teachers[key] = other
    assert settings.teacher_dependencies(config)["teachers"][key] == other


def test_the_stride_of_the_first_layer():
    """A run begun before the setting existed goes on; a wrong one is named."""
    config = digits.get_config()
    assert "stem_strides" not in settings.teacher_dependencies(config)["model"]
    config.model.update({"name": "resnet", "depth": 8, "stem_strides": 2})
    validate.check(config)
    assert settings.teacher_dependencies(config)["model"]["stem_strides"] == 2
    values = config.to_dict()
    for wrong, words in (
        ({"stem_strides": 0}, r"model\.stem_strides=0"),
        ({"stem_stride": 2}, "did you mean model.stem_strides"),
    ):
        changed = {**values, "model": {**values["model"], **wrong}}
        with pytest.raises(InputError, match=words):
            validate.check(ml_collections.ConfigDict(changed))


def test_label_smoothing_concerns_only_students_with_a_label_term():
    config = digits.get_config()
    config.students.dirichlet = default.student(config, student="dirichlet")
    names = ("dirichlet", "be_none")
    before = [dependencies(config, name) for name in names]
    config.distill.label_smoothing = 0.1
    after = [dependencies(config, name) for name in names]
    assert before[0] == after[0] and "label_smoothing" not in before[1]
    assert after[1]["label_smoothing"] == 0.1


def test_the_terms_of_hydra_plus_concern_those_who_change_them():
    config = digits.get_config()
    config.students.single_none.student = "hydra"
    assert "hydra_diversity" not in dependencies(config, "single_none")
    config.distill.hydra_diversity = 0.1
    assert dependencies(config, "single_none")["hydra_diversity"] == 0.1


def test_dropout_concerns_only_those_who_have_it():
    config = digits.get_config()
    assert "dropout_rate" not in settings.teacher_dependencies(config)["model"]
    config.model.dropout_rate = 0.1
    assert settings.teacher_dependencies(config)["model"]["dropout_rate"] == 0.1


def test_snapshots_depend_on_no_other_schedule():
    before = digits.get_config()
    before.teachers.kind = "snapshot"
    after = before.copy_and_resolve_references()
    after.teachers.schedule, after.teachers.warmup_epochs = "constant", 3.0
    assert settings.teacher_dependencies(before) == settings.teacher_dependencies(after)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("snapshot", {"num_epochs": 7}, "num_epochs=7 must be a multiple of .*=4"),
        ("snapshot", {"select": "best"}, "select='best' must be last"),
        ("snapshot", {"bootstrap": True}, "bootstrap=True must be False"),
        ("dropout", {}, "dropout_rate=None must be above 0"),
        ("other", {}, "kind='other' must be one of deep, snapshot, checkpoint, "),
    ],
)
def test_what_a_kind_of_teachers_cannot_be_trained_with(kind, changes, words):
    config = digits.get_config()
    config.teachers.num_members, config.teachers.num_epochs = 4, 8
    config.teachers.update({"kind": kind, **changes})
    with pytest.raises(InputError, match=words):
        validate.check(config)


@pytest.mark.parametrize("step_sizes", [(1 / 255, 0.1), [0.1], ()])
def test_step_sizes_are_distinct_and_above_0(step_sizes):
    values = digits.get_config().to_dict()
    values["evaluation"]["step_sizes"] = step_sizes
    validate.check(ml_collections.ConfigDict(values))
    for wrong in ((*step_sizes, 0.0), (0.2, 0.2), 0.1, "ab", (float("inf"),)):
        values["evaluation"]["step_sizes"] = wrong
        with pytest.raises(InputError, match=r"evaluation\.step_sizes=.* above 0"):
            validate.check(ml_collections.ConfigDict(values))


@pytest.mark.parametrize("key", ["-model", "model-2", "data:x", "distill ", ""])
def test_a_setting_of_any_name_hides_no_fault_of_the_sections(key):
    values = digits.get_config().to_dict()
    values[key] = 1
    values["data"]["downsample"] = 3
    values["model"] |= {"name": "resnet", "depth": 9}
    values["students"]["single_none"]["temperature"] = 0.0
    with pytest.raises(InputError) as caught:
        validate.check(ml_collections.ConfigDict(values))
    message = str(caught.value)
    assert f"{key} is no setting" in message
    assert "students.single_none.temperature=0.0 must be" in message
    assert "data.downsample=3 must divide" in message
    assert "model.depth=9 is no depth of a resnet; accepted" in message


def test_a_student_can_turn_off_clipping():
    config = digits.get_config()
    config.students.free = default.student(config, perturbation="ods", clip=None)
    config.students.plain = default.student(config, perturbation="ods")
    validate.check(config)
    assert settings.student_settings(config, "free")["clip"] is None
    assert "clip" not in settings.student_settings(config, "plain")
    config = ml_collections.ConfigDict(json.loads(config.to_json()))  # as stored
    x = jnp.full((1, 4), 0.999)
    kept = {}
    for name in ("free", "plain"):
        perturb = create_perturbation(settings.student_settings(config, name))
        teachers = teachers_from_functions([lambda x: x[:, :3] * 3])
        kept[name] = perturb(jax.random.key(0), x, teachers)
    assert kept["free"].max() > 1 >= kept["plain"].max()
    np.testing.assert_array_equal(kept["plain"], jnp.clip(kept["free"], 0, 1))


def test_a_label_term_of_mixtures_is_a_dependency_of_its_own():
    config = digits.get_config()
    config.students = {"mixed": {"perturbation": "mixup+disagreement", "alpha": 0.5}}
    teachers = settings.teacher_dependencies(config)
    for clean_pass, alpha, expected in (
        (False, 0.5, True),
        (True, 0.5, False),
        (False, 1.0, False),
    ):
        student = settings.student_settings(config, "mixed")
        student |= {"clean_pass": clean_pass, "alpha": alpha}
        found = settings.student_dependencies(config, student, teachers)
        assert ("mixed_labels" in found) == expected


def test_a_schedule_that_is_cut_off_is_a_warning(tmp_path, capfd):
    config = tiny_config(warmup_epochs=2.0)
    config.distill.update({"num_epochs": 3, "warmup_epochs": 3.0})
    run = create_experiment(config, tmp_path).run
    assert not capfd.readouterr().err  # such as of an evaluation or an export
    preconditions.warn_of_schedules(run, run.students)
    teachers, student = capfd.readouterr().err.splitlines()
    assert teachers.startswith("warning: teachers: warmup_epochs=2.0 leaves none of 2 ")
    assert student.startswith("warning: students.single_conf_ods: warmup_epochs=3.0 ")
    preconditions.warn_of_schedules(run)
    assert capfd.readouterr().err == f"{teachers}\n"
    # Of complete stages it is too late.
    Stage(run.teachers_dir, {}).complete({"num_params": 1, "train_seconds": 1.0})
    preconditions.warn_of_schedules(run, run.students)
    assert capfd.readouterr().err == f"{student}\n"
