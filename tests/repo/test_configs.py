"""Tests that the shipped configurations are as documented and run."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from launching import Commands

from configs import compare
from edp import distill, ensemble, models, perturbations, students
from edp.experiment import settings, validate
from edp.runtime import optimizers
from launch.cli import config_flag

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
# Networks that are slow to trace or compile; `make test-long` runs them.
LARGE = {"cifar10_resnet32", "cifar10_vit", "cifar100_wrn28x10", "imagenet_resnet50"}
QUICK_RUNS = {"digits"}


def marked(long):
    return [
        pytest.param(name, marks=[pytest.mark.long] if name in long else [])
        for name in NAMES
    ]


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("compiled"))


def load(name, *variant):
    return config_flag.load(ROOT / f"configs/{name}.py")(*variant)


@pytest.mark.parametrize("name", marked(set(NAMES) - QUICK_RUNS))
def test_debug_variant_runs_the_whole_pipeline(name, commands, tmp_path):
    done = commands.run(
        "run", f"--config=configs/{name}.py:debug", f"--workdir={tmp_path}"
    )
    assert done.code == 0, done
    rows = json.loads((tmp_path / "results.json").read_text())
    expected = {"DE-1", "DE-2", *load(name, "debug").students}
    assert {row["model"] for row in rows} == expected
    assert len(expected) <= 5 and any("none" in model for model in expected)
    assert (tmp_path / "report.html").exists()


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match="variant 'debgu'; accepted: debug"):
        load("digits", "debgu")


@pytest.mark.parametrize("teachers", [name for name in compare.TEACHERS if name])
def test_the_comparison_with_other_teachers(teachers):
    for base in ("", "cifar10_small", "debug"):
        config = load("compare", f"{base}+{teachers}")
        if base == "cifar10_small":
            config.data.data_dir = "data"
        validate.check(config)
    plain, own = load("compare").teachers, load("compare", f"+{teachers}").teachers
    assert plain.to_dict() != own.to_dict()
    with pytest.raises(ValueError, match=r"teachers 'sgld'; accepted: .* multiswag"):
        load("compare", "debug+sgld")


def test_variants_of_the_protocols_at_32x32():
    plain, mixed = (load("cifar10_resnet", *v) for v in ((), ("mixup",)))
    search, gpu = load("cifar10_resnet", "search"), load("cifar10_resnet32", "gpu")
    sixteen, one = (load("cifar10_resnet", v) for v in ("sixteen", "one"))
    for config in (plain, mixed, search, sixteen, one, gpu):
        config.data.data_dir = "data"
        validate.check(config)
    assert (plain.teachers.mixup_alpha, mixed.teachers.mixup_alpha) == (0.0, 1.0)
    assert plain.students.to_dict() == mixed.students.to_dict()
    # Students of one teacher are trained as those of four.
    assert one.teachers.to_dict() == {**plain.teachers.to_dict(), "num_members": 1}
    students = plain.students.to_dict()
    assert {"single_none_tau4", "single_mixup_tau4"} <= set(one.students)
    assert all(own == students[name] for name, own in one.students.to_dict().items())
    # The groups of the sixteen are of the plain teachers' network and settings.
    for name, size in (("added", 12), ("first", 4)):
        group = settings.group_config(sixteen, name)
        assert group.model.to_dict() == plain.model.to_dict()
        own = {**plain.teachers.to_dict(), "num_members": size}
        own.pop("groups")
        assert group.teachers.to_dict() == own
    splits = (search.data.train_split, search.data.test_split)
    assert splits == ("train[:45000]", "train[45000:]")
    long = settings.student_settings(plain, "single_mixup_tau4_long")
    assert long["num_epochs"] == 2 * plain.distill.num_epochs
    # Only how the paper's protocol is computed changes.
    paper = load("cifar10_resnet32")
    for key in ("teachers", "distill", "model"):
        assert gpu[key].to_dict() == paper[key].to_dict()
    for name, words in (("cifar10_resnet", "search"), ("cifar10_resnet32", "gpu")):
        with pytest.raises(ValueError, match=f"variant 'debgu'; accepted: .*{words}"):
            load(name, "debgu")


def test_the_search_sees_no_test_image():
    config = load("cifar10_small", "search")
    validate.check(config)
    parts = (config.data.train_split, config.data.test_split)
    assert parts == ("train[:40000]", "train[40000:]")
    steps = {
        name: settings.student_settings(config, name)["step_size"]
        for name in config.students
    }
    assert steps["conf_ods_8"] == 8 / 255 and steps["mixup_disagreement_16"] == 16 / 255


def create_steps(config):
    """Returns functions: initial states, the teachers' step, a student's step."""
    if config.data.source == "folder":
        config.data.path = "given with the command"
    validate.check(config)
    num_members = config.teachers.num_members

    def build(**members):
        return models.create_model(
            config.model,
            num_classes=config.data.num_classes,
            mean=config.data.mean,
            std=config.data.std,
            dtype=config.dtype,
            **members,
        )

    name = next(n for n in config.students if n.endswith("disagreement"))
    chosen = settings.student_settings(config, name)
    student = students.create_student(
        chosen, build, num_members=num_members, training_steps=10
    )
    model, tx = build(), optimizers.create_optimizer(config.teachers, 10)
    student_tx = optimizers.create_optimizer(chosen, 10, student.rule)
    example = jnp.zeros((1, *config.data.image_shape))
    keys = jax.random.split(jax.random.key(0), num_members)

    def init():
        return (
            ensemble.create_state(model, tx, keys, example),
            distill.create_state(student, student_tx, keys[0], example),
        )

    def teacher_step(state, batch):
        return ensemble.train_step(state, batch, keys[0], model=model, tx=tx)

    def student_step(state, batch, variables):
        return distill.distill_step(
            state,
            batch,
            keys[0],
            student=student,
            teachers=ensemble.teachers_from_variables(model, variables),
            perturb=perturbations.create_perturbation(chosen),
            tx=student_tx,
            clean_pass=chosen["clean_pass"],
        )

    return init, teacher_step, student_step, chosen["batch_size"]


def batches(config, teacher_batch, student_batch, make):
    def batch(*sizes):
        image = make((*sizes, *config.data.image_shape), jnp.float32)
        return {"image": image, "label": make(sizes, jnp.int32)}

    return batch(config.teachers.num_members, teacher_batch), batch(student_batch)


@pytest.mark.parametrize("name", marked(LARGE))
def test_steps_fit_together_at_the_full_batch(name):
    config = load(name)
    config.data.image_shape = (
        tuple(side // config.data.downsample for side in config.data.image_shape[:2])
        + config.data.image_shape[2:]
    )
    if not any(n.endswith("disagreement") for n in config.students):
        config.students.disagreement = {"perturbation": "disagreement"}
    init, teacher_step, student_step, batch_size = create_steps(config)
    teacher_batch, student_batch = batches(
        config, config.teachers.batch_size, batch_size, jax.ShapeDtypeStruct
    )
    state, student_state = jax.eval_shape(init)
    new_state, metrics = jax.eval_shape(teacher_step, state, teacher_batch)
    assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(jnp.shape, state)
    assert metrics["loss"].shape == (config.teachers.num_members,)
    new_state, metrics = jax.eval_shape(
        student_step, student_state, student_batch, state.variables
    )
    assert jax.tree.map(jnp.shape, new_state) == jax.tree.map(jnp.shape, student_state)
    assert metrics["loss"].shape == ()


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NAMES if "_" in name])
def test_a_real_step_of_two_images(name):
    config = load(name)
    config.teachers.num_members = 2
    init, teacher_step, student_step, _ = create_steps(config)
    teacher_batch, student_batch = batches(config, 2, 2, jnp.ones)
    state, student_state = init()
    state, metrics = jax.jit(teacher_step)(state, teacher_batch)
    assert jnp.isfinite(metrics["loss"]).all()
    student_state, metrics = jax.jit(student_step)(
        student_state, student_batch, state.variables
    )
    assert jnp.isfinite(metrics["loss"]) and student_state.step == 1


@pytest.mark.parametrize("name", ["cifar10_resnet32", "cifar100_wrn28x10"])
def test_the_papers_learning_rates_at_every_epoch(name):
    config = load(name)
    expected = {
        "cifar10_resnet32": ((200, 100, 180, 0.4), (250, 125, 225, 0.1)),
        "cifar100_wrn28x10": ((300, 150, 270, 0.2), (300, 150, 270, 0.05)),
    }[name]
    for section, facts in zip((config.teachers, config.distill), expected, strict=True):
        num_epochs, first, second, peak = facts
        assert section.num_epochs == num_epochs
        steps = 45_000 // section.batch_size
        schedule = optimizers.create_schedule(section, steps)
        for e in range(1, num_epochs + 1):
            factor = 0.01
            if e < 5:
                factor = 0.01 + 0.99 * (e - 1) / 4
            elif e < first:
                factor = 1.0
            elif e < second:
                factor = 1 - 0.99 * (e - first) / (second - first)
            for step in ((e - 1) * steps, e * steps - 1):
                assert float(schedule(step)) == pytest.approx(peak * factor, rel=1e-6)
