"""Teachers of a distillation step: given logits, members and their temperatures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from distillation_steps import (
    B,
    K,
    M,
    create_state,
    make_student,
    one_step,
    perturbation,
)

from edp import distill, ensemble
from edp.errors import InputError


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

    step = functools.partial(
        distill.distill_step, student=student, teachers=teachers, perturb=perturb, tx=tx
    )
    state = jax.eval_shape(lambda: create_state(student, tx, batch["image"]))
    jax.eval_shape(step, state, batch, jax.random.key(1))  # traced, not computed
    assert (seen[0] is not None) == members
    if members:
        assert seen[0].shape == (M, B, K)


@pytest.mark.parametrize(
    "kind", ["single", pytest.param("batch_ensemble", marks=pytest.mark.long)]
)
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
