"""The distillation step against explicit formulas."""

import functools
import types

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distillation_steps import (
    MATCHING,
    B,
    K,
    M,
    build_model,
    make_student,
    one_step,
    perturbation,
)

from edp import distill, losses
from edp.ensemble import Teachers
from edp.errors import InputError
from edp.models import native
from edp.runtime import flops


def training_pass(model, variables, x):
    logits, updated = compiled.train_pass(model, variables, x)
    return logits, {**variables, **updated}


def softmax(z):
    return np.exp(losses.log_probs(z))


@pytest.mark.parametrize("clean_pass", [True, False])
@pytest.mark.parametrize("kind", MATCHING)
def test_loss_is_the_formula(kind, clean_pass, teachers, batch):
    alpha, tau = 0.7, 2.0
    student = make_student(kind, alpha=alpha, temperature=tau)
    perturb = perturbation("disagreement", temperature=tau)
    state, new, metrics = one_step(
        student, teachers, batch, perturb, clean_pass=clean_pass
    )
    key = jax.random.split(jax.random.key(3))[0]
    perturbed = jitted(perturb)(key, batch["image"], teachers, None)
    assert (perturbed != batch["image"]).any()
    model = build_model(num_members=M if kind == "batch_ensemble" else None)
    if clean_pass:
        logits, after = training_pass(model, state.variables, batch["image"])
        tilde_logits, after = training_pass(model, after, perturbed)
    else:
        logits, after = training_pass(model, state.variables, perturbed)
        tilde_logits = logits
    shape = (-1, B, K)
    logits, tilde_logits = logits.reshape(shape), tilde_logits.reshape(shape)
    p = softmax(jax.jit(teachers.all_logits)(perturbed) / tau)
    if kind == "single":
        p = p.mean(0, keepdims=True)
    q = softmax(tilde_logits / tau)
    kl = (p * (np.log(p) - np.log(q))).sum(-1).mean()
    ce = -np.log(softmax(logits))[:, np.arange(B), batch["label"]].mean()
    expected = (1 - alpha) * ce + alpha * tau**2 * kl
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
    # The clean pass updates the statistics first, then the perturbed one.
    for a, b in zip(
        jax.tree.leaves(new.model_state),
        jax.tree.leaves(after["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", MATCHING)
def test_without_perturbation_there_is_one_pass(kind, teachers, batch):
    student = make_student(kind)
    state, new, _ = one_step(student, teachers, batch, perturbation("none"))
    model = build_model(num_members=M if kind == "batch_ensemble" else None)
    _, after = training_pass(model, state.variables, batch["image"])
    for a, b in zip(
        jax.tree.leaves(new.model_state),
        jax.tree.leaves(after["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def jitted(perturb):
    return jax.jit(perturb, static_argnums=(2, 3))


def wrapped(perturb):
    @functools.wraps(perturb)
    def wrapper(*args):
        return perturb(*args)

    return wrapper


def test_a_declared_identity_costs_one_forward_pass(teachers, batch):
    model, student, tx = build_model(), make_student("single"), optax.identity()
    state = distill.create_state(student, tx, jax.random.key(2), batch["image"][:1])

    def count(fn, *args):
        with native.disabled():
            return flops.flops(fn, *args)

    def loss(params):
        logits, _ = training_pass(model, {**state.variables, "params": params}, x)
        return losses.cross_entropy(logits, batch["label"]).mean()

    def cost(perturb):
        return count(
            lambda state, batch: distill.distill_step(
                state,
                batch,
                jax.random.key(3),
                student=student,
                teachers=teachers,
                perturb=perturb,
                tx=tx,
            ),
            state,
            batch,
        )

    x = batch["image"]
    one_pass = count(jax.grad(loss), state.params)
    no_pass = count(teachers.all_logits, x)
    assert one_pass > 0 and no_pass > 0
    for perturb in (perturbation("none"), perturbation("none+none")):
        for same in (
            perturb,
            jitted(perturb),
            wrapped(perturb),
            wrapped(jitted(perturb)),
        ):
            assert cost(same) == no_pass + one_pass
    for name in ("gaussian", "none+gaussian"):
        assert cost(jitted(perturbation(name))) == no_pass + 2 * one_pass
    # Without the attribute, the cost does not depend on jit.
    assert cost(lambda key, x, *rest: x) == no_pass + 2 * one_pass


ONE_PIXEL = jnp.eye(B, 64).reshape(B, 8, 8, 1)  # a mixture shows its weights


@pytest.mark.parametrize(
    ("name", "clean_pass"),
    [
        ("mixup", True),
        ("mixup+disagreement", False),
        pytest.param("mixup+mixup", False, marks=pytest.mark.long),
    ],
)
def test_the_label_term_of_mixtures_has_mixed_labels(name, clean_pass, teachers):
    alpha, tau = 0.3, 2.0
    labels = jnp.array([0, 1, 2, 3, 0, 1])
    student = make_student("single", alpha=alpha, temperature=tau)
    # With step size 0, pixel j of mixture i is the weight of input j.
    perturb = perturbation(name, step_size=0.0, mixup_alpha=0.5)
    if name == "mixup+disagreement":
        perturb = jitted(perturb)
    tx, batch = optax.identity(), {"image": ONE_PIXEL, "label": labels}
    state = distill.create_state(student, tx, jax.random.key(2), ONE_PIXEL[:1])
    metrics = jax.jit(
        lambda state, batch: distill.distill_step(
            state,
            batch,
            jax.random.key(3),
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=tx,
            clean_pass=clean_pass,
        )[1]
    )(state, batch)
    key = jax.random.split(jax.random.key(3))[0]
    perturbed = jitted(perturb)(key, ONE_PIXEL, teachers, None)
    shares = np.float64(perturbed.reshape(B, -1)[:, :B])
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert (shares.max(1) < 0.99).sum() > 1
    forward = functools.partial(training_pass, build_model())
    logits, after = forward(state.variables, ONE_PIXEL if clean_pass else perturbed)
    shares = np.eye(B) if clean_pass else shares
    cross_entropies = -np.log(softmax(logits))[:, labels]  # [i, j]: CE(logits_i, y_j)
    label_loss = (shares * cross_entropies).sum(1).mean()
    np.testing.assert_allclose(metrics["label_loss"], label_loss, rtol=1e-5)
    right = logits.argmax(-1)[:, None] == labels
    np.testing.assert_allclose(metrics["accuracy"], (shares * right).sum(1).mean())
    if clean_pass:
        logits, _ = forward(after, perturbed)
    p = softmax(jax.jit(teachers.all_logits)(perturbed) / tau).mean(0)
    kl = (p * (np.log(p) - np.log(softmax(logits / tau)))).sum(-1).mean()
    np.testing.assert_allclose(metrics["distillation_loss"], tau**2 * kl, rtol=1e-4)
    loss = (1 - alpha) * label_loss + alpha * tau**2 * kl
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)


def test_the_target_term_alone_ignores_labels_and_the_label_term_alone_teachers(
    teachers, batch
):
    wrong = {**batch, "label": (batch["label"] + 1) % K}
    for alpha, other in ((1.0, (teachers, wrong)), (0.0, (None, batch))):
        student = make_student("single", alpha=alpha)
        _, reference, _ = one_step(student, teachers, batch, perturbation("none"))
        other_teachers, other_batch = other
        if other_teachers is None:
            other_teachers = teachers._replace(all_logits=lambda x: jnp.ones((M, B, K)))
        _, new, _ = one_step(student, other_teachers, other_batch, perturbation("none"))
        for a, b in zip(
            jax.tree.leaves(reference.params), jax.tree.leaves(new.params), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_batch_ensemble_matches_one_to_one(teachers, batch):
    # Permuting the teachers permutes the targets of the subnetworks: it changes the
    # step of a BatchEnsemble, but not that of a single student.
    permuted = teachers._replace(all_logits=lambda x: teachers.all_logits(x)[::-1])
    for kind, same in (("single", True), ("batch_ensemble", False)):
        student = make_student(kind, alpha=1.0)
        _, a, _ = one_step(student, teachers, batch, perturbation("none"))
        _, b, _ = one_step(student, permuted, batch, perturbation("none"))
        close = [
            np.allclose(x, y, atol=1e-6)
            for x, y in zip(
                jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True
            )
        ]
        assert all(close) == same


def test_teachers_of_one_class_are_refused_as_their_targets_would_be_1():
    teachers = Teachers(2, lambda x: jnp.ones((2, len(x), 1)), None)
    batch = {"image": jnp.ones((3, 4)), "label": jnp.zeros(3, jnp.int32)}
    student = types.SimpleNamespace(matched=None)
    with pytest.raises(InputError, match=r"2, 3, 1\); accepted: .* at least 2 classes"):
        distill.distill_step(
            types.SimpleNamespace(variables=None, step=0),
            batch,
            jax.random.key(0),
            student=student,
            teachers=teachers,
            perturb=lambda key, x, teachers, student: x,
            tx=None,
        )
