"""Pure functions under JAX's strict rules: no implicit promotion of ranks or dtypes.

Such promotions raise while a function is traced, so nothing is compiled.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from edp import distill, ensemble, losses, models, perturbations, students
from edp.metrics import uncertainty

M, B, K = 3, 4, 5
KEY = jax.random.key(0)
X = jnp.ones((B, 8, 8, 1)) / 2
LOGITS = jnp.ones((M, B, K))
LABELS = jnp.zeros(B, jnp.int32)
SETTINGS = {
    "step_size": 0.1,
    "temperature": 2.0,
    "alpha": 0.5,
    "mixup_alpha": 1.0,
    "factor_init": "normal",
    "rank_one_lr_factor": 0.5,
    "hydra_single_share": 0.5,
    "dirichlet_loss": "proxy",
    "dirichlet_start_temperature": 10.0,
    "dirichlet_annealing": (0.0, 0.5),
    "mimo_repetitions": 1,
    "packed_alpha": 2.0,
    "functional_sigma": 1.0,
    "functional_samples": 2,
    "functional_teachers": None,
    "functional_inference_samples": 2,
    "bridge_steps": 2,
    "bridge_one_step_share": 0.5,
    "bridge_betas": (1e-2, 1e-2),
    "bridge_width": 8,
    "flow_width": 8,
    "flow_samples": None,
}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def build_model(**kwargs):
    model = {"name": "convnet", "width": 8}
    return models.create_model(model, num_classes=K, mean=(0.5,), std=(0.2,), **kwargs)


def make_teachers():
    weights = jnp.ones((64, K))
    functions = [
        lambda x, m=m: x.reshape(x.shape[0], -1) @ weights * m for m in range(M)
    ]
    return ensemble.teachers_from_functions(functions)


def stacked(key):
    return ensemble.init(build_model(), jax.random.split(key, M), X[:1])


def trace_step(student="single", perturbation="none", **changes):
    settings = {**SETTINGS, "student": student, "perturbation": perturbation, **changes}
    student = students.create_student(
        settings, build_model, num_members=M, training_steps=2
    )
    tx = optax.sgd(0.1)
    state = jax.eval_shape(
        lambda key: distill.create_state(student, tx, key, X[:1], stacked(key)), KEY
    )
    step = functools.partial(
        distill.distill_step,
        student=student,
        teachers=make_teachers(),
        perturb=perturbations.create_perturbation(settings),
        tx=tx,
        clean_pass=perturbation != "mixup",
    )
    new, metrics = jax.eval_shape(step, state, {"image": X, "label": LABELS}, KEY)
    assert metrics["loss"].shape == () and metrics["loss"].dtype == jnp.float32
    shapes = [[(x.shape, x.dtype) for x in jax.tree.leaves(s)] for s in (state, new)]
    assert shapes[0] == shapes[1]
    variables = jax.eval_shape(student.finalise, new.variables)
    for function in (student.predict, student.uncertainty):
        for leaf in jax.tree.leaves(jax.eval_shape(function, variables, X)):
            assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", perturbations.PERTURBATIONS)
def test_perturbations(name):
    trace_step(perturbation=name)


@pytest.mark.parametrize("name", perturbations.QUANTITIES)
def test_quantities(name):
    trace_step(perturbation="disagreement", quantity=name, num_steps=2)


@pytest.mark.parametrize("name", students.STUDENTS)
def test_students(name):
    trace_step(student=name)


def test_the_other_loss_of_dirichlet_students():
    trace_step(student="dirichlet", dirichlet_loss="mle")


LOSSES = {
    "cross_entropy": lambda: losses.cross_entropy(LOGITS, LABELS),
    "soft_cross_entropy": lambda: losses.cross_entropy(LOGITS, jnp.ones((B, K)) / K),
    "mean_log_probs": lambda: losses.mean_log_probs(LOGITS, 2.0),
    "geometric_mean_log_probs": lambda: losses.geometric_mean_log_probs(LOGITS, 2.0),
    "distillation": lambda: losses.distillation(losses.log_probs(LOGITS), LOGITS, 2.0),
    "maximum_mean_discrepancy": lambda: losses.maximum_mean_discrepancy(
        LOGITS[0], LOGITS[1]
    ),
    "uncertainty": lambda: uncertainty.scores(jax.nn.softmax(LOGITS)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_metrics(name):
    assert jax.tree.leaves(jax.eval_shape(LOSSES[name]))


def test_teachers():
    model, tx = build_model(), optax.sgd(0.1)
    keys = jax.random.split(KEY, M)
    create = functools.partial(ensemble.create_state, model, tx)
    state = jax.eval_shape(create, keys, X[:1])
    batch = {"image": jnp.stack([X] * M), "label": jnp.stack([LABELS] * M)}
    step = functools.partial(ensemble.train_step, model=model, tx=tx)
    for strategy in ensemble.STRATEGIES:
        run = functools.partial(step, strategy=strategy)
        _, metrics = jax.eval_shape(run, state, batch, KEY)
        assert metrics["loss"].shape == (M,)


def test_the_rules_are_strict():
    with pytest.raises(ValueError, match="rank_promotion='raise'"):
        jax.eval_shape(lambda: jnp.ones((2, 3)) + jnp.ones(3))
    with pytest.raises(ValueError, match="no available implicit"):
        jax.eval_shape(lambda: jnp.ones(3) + jnp.ones(3, jnp.int32))
