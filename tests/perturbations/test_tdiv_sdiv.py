"""TDiv-SDiv against finite differences and identities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_members import FakeTeachers, cosines, flat_norm, inputs, mlp_members

from edp import perturbations
from edp.errors import InputError


def divergence(logits_fn, held, x):
    """Computes H(p_j, p_i) [B] in float64, member j at the input `held`."""

    def probs(x):
        z = np.asarray(logits_fn(x), np.float64)
        z = np.exp(z - z.max(-1, keepdims=True))
        return z / z.sum(-1, keepdims=True)

    return -(probs(held)[1] * np.log(probs(x)[0])).sum(-1)


@pytest.mark.parametrize("with_students", [True, False])
def test_tdiv_sdiv_goes_along_the_gradient_by_finite_differences(with_students):
    teachers, students, x = mlp_members(2), mlp_members(2, seed=5), inputs(batch=4)

    def logits_fn(x):
        return teachers(x), students(x) if with_students else None

    def ascended(perturbed):
        value = divergence(teachers, x, perturbed)
        return value - divergence(students, x, perturbed) if with_students else value

    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros(x.shape)
        step[(slice(None), *place)] = 1e-2
        difference = ascended(jnp.float32(x + step)) - ascended(jnp.float32(x - step))
        gradient[(slice(None), *place)] = difference / 2e-2
    perturbed = perturbations.tdiv_sdiv(jax.random.key(0), logits_fn, x, step_size=1e-2)
    assert cosines(perturbed - x, gradient).min() > 0.999
    np.testing.assert_allclose(
        flat_norm(perturbed - x), 1e-2 * math.sqrt(12), rtol=1e-4
    )


@pytest.mark.parametrize("margin", [0.0, 30.0, 300.0])
def test_tdiv_sdiv_weighs_both_pairs_at_any_margin(margin):
    pair, x = mlp_members(2, margin), inputs()
    both = perturbations.tdiv_sdiv(
        jax.random.key(0), lambda x: (pair(x), pair(x)), x, step_size=0.01
    )
    np.testing.assert_array_equal(both, x)  # equally diverse: zero gradient
    alone = perturbations.tdiv_sdiv(
        jax.random.key(0), lambda x: (pair(x), None), x, step_size=0.01
    )
    assert (flat_norm(alone - x) > 0).all()
    twins = perturbations.tdiv_sdiv(
        jax.random.key(0),
        lambda x: (pair(x), jnp.stack([pair(x)[0]] * 2)),
        x,
        step_size=0.01,
    )
    np.testing.assert_allclose(twins, alone, atol=1e-6)


def test_tdiv_sdiv_samples_one_pair_for_teachers_and_student():
    all_logits, x = mlp_members(3), inputs()
    seen = []

    def member_logits(m, x):
        seen.append(int(m))
        return all_logits(x)[m]

    teachers = FakeTeachers(3, all_logits, member_logits)
    perturb = perturbations.create_perturbation(
        {"perturbation": "tdiv_sdiv", "step_size": 0.01}
    )
    pairs = set()
    for seed in range(20):
        key = jax.random.key(seed)
        alone = perturb(key, x, teachers)
        pairs.add(tuple(seen[-2:]))
        # A student equal to its teachers is equally diverse.
        np.testing.assert_array_equal(perturb(key, x, teachers, all_logits), x)
        assert (alone != x).any()
    assert pairs == {(i, j) for i in range(3) for j in range(3) if i != j}
    with pytest.raises(AssertionError):  # not one member for each teacher
        perturb(key, x, teachers, lambda x: all_logits(x)[:2])
    one = FakeTeachers(1, None, lambda m, x: all_logits(x)[0])
    with pytest.raises(InputError, match=r"num_members=1; accepted: at least"):
        perturb(key, x, one)
