"""Every kind of student takes finite steps and predicts."""

import jax
import numpy as np
import optax
import pytest
from distillation_steps import (
    B,
    K,
    M,
    make_student,
    one_step,
    perturbation,
    teacher_variables,
)

from edp import distill, ensemble, perturbations, students
from edp.errors import InputError

# With M predictions.
SEVERAL_MEMBERS = [
    *("batch_ensemble", "flow", "functional", "hydra", "mimo", "packed"),
]
PAIRS = [("single", name) for name in perturbations.PERTURBATIONS]
PAIRS += [(kind, "gaussian") for kind in students.STUDENTS if kind != "single"]
OTHERS = [("batch_ensemble", name) for name in perturbations.PERTURBATIONS]
OTHERS = [
    pytest.param(*pair, marks=pytest.mark.long) for pair in OTHERS if pair not in PAIRS
]


@pytest.mark.parametrize(("kind", "name"), sorted(PAIRS) + OTHERS)
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
    variables = jax.jit(student.init)(jax.random.key(0), batch["image"][:1])
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


def test_weights_and_temperatures_out_of_range_are_refused():
    for wrong in ({"alpha": -0.1}, {"alpha": 90}, {"temperature": 0}):
        for kind in ("single", "mimo"):
            with pytest.raises(InputError, match=r"alpha from 0 to 1, a temperature"):
                make_student(kind, **wrong)


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
