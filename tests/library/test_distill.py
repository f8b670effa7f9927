"""Students and the distillation step against explicit formulas."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from edp import distill, ensemble, losses, models, perturbations, students
from edp.errors import InputError
from edp.models import native
from edp.runtime import flops

M, B, K = 3, 6, 4
# With M predictions.
SEVERAL_MEMBERS = [
    *("batch_ensemble", "flow", "functional", "hydra", "mimo", "packed"),
]
MATCHING = ["batch_ensemble", "single"]  # with the loss on the logits


def build_model(**kwargs):
    config = ml_collections.ConfigDict({"name": "convnet", "width": 4})
    return models.create_model(
        config, num_classes=K, mean=(0.5,), std=(0.25,), **kwargs
    )


def make_student(kind, *, alpha=0.7, temperature=2.0, **settings):
    config = {
        "student": kind,
        "alpha": alpha,
        "temperature": temperature,
        "factor_init": "normal",
        "hydra_single_share": 0.0,
        "mimo_repetitions": 1,
        "packed_alpha": 2.0,
        "dirichlet_loss": "mle",
        "dirichlet_start_temperature": 2.0,
        "dirichlet_annealing": (0.0, 0.5),
        "functional_sigma": 1.0,
        "functional_samples": 2,
        "functional_teachers": None,
        "functional_inference_samples": M,
        "bridge_steps": 3,
        "bridge_one_step_share": 0.5,
        "bridge_betas": (0.1, 0.2),
        "bridge_width": 8,
        "flow_width": 8,
        "flow_samples": None,
        **settings,
    }
    return students.create_student(config, build_model, num_members=M, training_steps=8)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(size=(B, 8, 8, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, K, size=B)),
    }


@functools.cache
def teacher_variables():
    keys = jax.random.split(jax.random.key(1), M)
    return ensemble.init(build_model(), keys, jnp.zeros((1, 8, 8, 1)))


@pytest.fixture(scope="module")
def teachers():
    return ensemble.teachers_from_variables(build_model(), teacher_variables())


def create_state(student, tx, images):
    return distill.create_state(
        student, tx, jax.random.key(2), images[:1], teacher_variables()
    )


def perturbation(name, **settings):
    config = {"perturbation": name, "step_size": 0.05, **settings}
    return perturbations.create_perturbation(config)


def one_step(student, teachers, batch, perturb, **kwargs) -> tuple[Any, Any, Any]:
    tx = optax.sgd(0.1)
    state = create_state(student, tx, batch["image"])
    step = jax.jit(
        lambda s, b, k: distill.distill_step(
            s,
            b,
            k,
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=tx,
            **kwargs,
        )
    )
    return (state, *step(state, batch, jax.random.key(3)))


def test_given_teacher_logits_are_not_computed(teachers, batch):
    student = make_student("single", alpha=0.7, temperature=2.0)
    none = perturbation("none")
    computed = one_step(student, teachers, batch, none)
    logits = jax.jit(teachers.all_logits)(batch["image"])
    silent = teachers._replace(all_logits=None)
    given = one_step(student, silent, {**batch, "teacher_logits": logits}, none)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6), computed, given
    )


def test_given_teacher_logits_need_unperturbed_images(teachers, batch):
    student = make_student("single")
    batch = {**batch, "teacher_logits": jnp.zeros((M, len(batch["image"]), K))}
    with pytest.raises(InputError, match=r"teacher_logits.*such as 'none'"):
        one_step(student, teachers, batch, perturbation("ods"))
    missing = {**batch, "teacher_logits": batch["teacher_logits"][1:]}
    with pytest.raises(AssertionError, match="shape"):
        one_step(student, teachers, missing, perturbation("none"))


def training_pass(model, variables, x):
    logits, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
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
    perturbed = perturb(key, batch["image"], teachers)
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
    p = softmax(teachers.all_logits(perturbed) / tau)
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
    forward = jax.jit(functools.partial(training_pass, build_model()))
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


PAIRS = [(kind, name) for kind in MATCHING for name in perturbations.PERTURBATIONS]
PAIRS += [(kind, "gaussian") for kind in students.STUDENTS if kind not in MATCHING]


@pytest.mark.parametrize(("kind", "name"), sorted(PAIRS))
def test_every_pair_takes_a_finite_step(kind, name, teachers, batch):
    student = make_student(kind)
    state, new, metrics = one_step(student, teachers, batch, perturbation(name))
    assert new.step == 1
    assert all(np.isfinite(v) for v in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.params))
    changed = [
        (a != b).any()
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(new.params), strict=True
        )
    ]
    assert all(changed)
    if student.begin is not None:  # with member 0, which the step leaves alone
        member = ensemble.select(teacher_variables(), 0)
        for variables in (state.variables, new.variables):
            jax.tree.map(np.testing.assert_array_equal, variables["source"], member)


@pytest.mark.parametrize("kind", sorted(students.STUDENTS))
def test_predictions_and_uncertainties(kind, batch):
    student = make_student(kind)
    variables = student.init(jax.random.key(0), batch["image"][:1])
    variables = jax.jit(student.finalise)(variables)
    predict = jax.jit(student.predict)
    probs = predict(variables, batch["image"])
    assert probs.shape == (student.num_members, B, K)
    assert student.num_members == (M if kind in SEVERAL_MEMBERS else 1)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    scores = jax.jit(student.uncertainty)(variables, batch["image"])
    mean = np.asarray(probs.mean(0), np.float64)
    np.testing.assert_allclose(scores["max_probability"], 1 - mean.max(-1), rtol=1e-5)
    entropy = -(mean * np.log(mean)).sum(-1)
    np.testing.assert_allclose(scores["predictive_entropy"], entropy, rtol=1e-5)
    assert ("mutual_information" in scores) == (kind in [*SEVERAL_MEMBERS, "dirichlet"])
    assert all(value.shape == (B,) for value in scores.values())
    finished = student.finalise(variables)  # finalise is idempotent
    np.testing.assert_array_equal(predict(finished, batch["image"]), probs)


def test_unknown_student():
    with pytest.raises(InputError, match=r"student='hydro'.*batch_ensemble"):
        make_student("hydro")


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("single", False),
        ("dirichlet", False),
        ("functional", False),
        ("batch_ensemble", True),
        ("latent_batch_ensemble", True),
        ("hydra", True),
        ("mimo", True),
        ("packed", True),
    ],
)
def test_perturbations_receive_the_one_to_one_members(kind, members, batch, teachers):
    student, seen = make_student(kind), []
    tx = optax.sgd(0.1)

    def perturb(key, x, teachers, own):
        seen.append(None if own is None else own(x))
        return x

    state = create_state(student, tx, batch["image"])
    distill.distill_step(
        state,
        batch,
        jax.random.key(1),
        student=student,
        teachers=teachers,
        perturb=perturb,
        tx=tx,
    )
    assert (seen[0] is not None) == members
    if members:
        assert seen[0].shape == (M, B, K)


@pytest.mark.parametrize("kind", ["single", "dirichlet"])
def test_labels_out_of_range_are_refused_outside_jit(kind, teachers, batch):
    student, tx = make_student(kind), optax.sgd(0.1)
    state = distill.create_state(student, tx, jax.random.key(0), batch["image"][:1])
    for wrong in (-1, K):
        wrong_batch = {**batch, "label": batch["label"].at[0].set(wrong)}
        with pytest.raises(InputError, match=f"labels has values .* 0 to {K - 1}"):
            distill.distill_step(
                state,
                wrong_batch,
                jax.random.key(1),
                student=student,
                teachers=teachers,
                perturb=perturbation("none"),
                tx=tx,
            )


@pytest.mark.parametrize("kind", MATCHING)
def test_members_at_temperatures_of_their_own(kind, teachers, batch):
    """All 1 change no bit; others are those of members with divided logits."""

    def step(own):
        student = make_student(kind)
        return one_step(student, own, batch, perturbation("conf_ods"))[1:]

    plain = step(teachers)
    ones = step(ensemble.temper(teachers, np.ones(M, np.float32)))
    jax.tree.map(np.testing.assert_array_equal, ones, plain)
    scales = np.array([0.5, 2.0, 4.0], np.float32)
    divided = ensemble.teachers_from_functions(
        [lambda x, m=m: teachers.member_logits(m, x) / scales[m] for m in range(M)]
    )
    found, expected = step(ensemble.temper(teachers, scales)), step(divided)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found,
        expected,
    )
    assert found[1]["distillation_loss"] != plain[1]["distillation_loss"]
