"""Perturbations: values by hand, identities, saturated and equal members."""

import decimal
import functools
import math
import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp import perturbations
from edp.errors import InputError
from edp.perturbations import geometry, objectives

QUANTITIES = sorted(perturbations.QUANTITIES)


class FakeTeachers(NamedTuple):
    """The shape of record that bound perturbations receive."""

    num_members: int
    all_logits: object
    member_logits: object


def mlp_members(num_members, margin=1.0, dim=12, num_classes=5, seed=0):
    """Random two-layer members, their top logits pushed up by `margin`.

    All agree on class 0 once the margin is large, as converged members do.
    """
    rng = np.random.default_rng(seed)
    w1 = jnp.asarray(
        rng.normal(size=(num_members, dim, 16)) / np.sqrt(dim), jnp.float32
    )
    w2 = jnp.asarray(rng.normal(size=(num_members, 16, num_classes)), jnp.float32)
    push = jnp.zeros(num_classes).at[0].set(margin)

    def logits_fn(x):
        flat = x.reshape(x.shape[0], -1)
        hidden = jnp.tanh(jnp.einsum("bd,mdh->mbh", flat, w1.astype(x.dtype)))
        return jnp.einsum("mbh,mhk->mbk", hidden, w2.astype(x.dtype)) + push

    return logits_fn


def inputs(batch=16, shape=(3, 4), seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.3, 0.7, size=(batch, *shape)), jnp.float32)


def flat_norm(x):
    return np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)


def cosines(a, b):
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (a, b))
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


# --- textbook gradients, with enough decimal digits -----------------------------


def exact_probs(logits, temperature):
    """[M, K] nested lists of Decimal."""
    tau = decimal.Decimal(str(temperature))
    rows = []
    for row in logits:
        powers = [(decimal.Decimal(float(z)) / tau).exp() for z in row]
        rows.append([p / sum(powers) for p in powers])
    return rows


def exact_cotangent(quantity, logits, temperature, weights=None):
    """d quantity / d p_mk pulled through the softmax, textbook formulas."""
    spread = float(np.ptp(logits)) / temperature
    decimal.getcontext().prec = 60 + int(2 * spread)  # p of e^-spread, differences
    probs = exact_probs(logits, temperature)
    num_members, num_classes = len(probs), len(probs[0])
    members, classes = range(num_members), range(num_classes)
    mean = [sum(probs[m][k] for m in members) / num_members for k in classes]
    if quantity == "variance":
        grad = [[probs[m][k] - mean[k] for k in classes] for m in members]
    elif quantity == "mutual_information":
        grad = [[(probs[m][k] / mean[k]).ln() for k in classes] for m in members]
    elif quantity == "pairwise_kl":
        grad = [
            [
                sum(
                    (probs[m][k] / probs[i][k]).ln() - probs[i][k] / probs[m][k]
                    for i in members
                )
                for k in classes
            ]
            for m in members
        ]
    else:
        grad = weights
    result = []
    for p, g in zip(probs, grad, strict=True):
        inner = sum(pk * gk for pk, gk in zip(p, g, strict=True))
        result.append([pk * (gk - inner) for pk, gk in zip(p, g, strict=True)])
    largest = max(abs(v) for row in result for v in row)
    return np.array([[float(v / largest) for v in row] for row in result])


@pytest.mark.parametrize("margin", [0, 3, 40, 400])
@pytest.mark.parametrize("quantity", ["variance", "mutual_information", "pairwise_kl"])
def test_cotangent_is_exact_at_any_margin(quantity, margin):
    rng = np.random.default_rng(margin)
    logits = rng.normal(size=(4, 1, 5)).astype(np.float32)
    logits[:, :, 2] += margin
    # What float32 can be held to is the gradient at the float32 logits.
    expected = exact_cotangent(quantity, logits[:, 0], 1.0)
    got = perturbations.QUANTITIES[quantity](
        jax.random.key(0), jnp.asarray(logits), 1.0
    )
    # A logit of 400 is itself known to 3e-5 in float32: so are the differences.
    np.testing.assert_allclose(got[:, 0], expected, atol=2e-5 * max(1, margin / 20))
    assert abs(np.abs(got).max() - 1.0) < 1e-6


@pytest.mark.parametrize("quantity", ["variance", "mutual_information", "pairwise_kl"])
def test_cotangent_where_members_disagree_on_the_top_class(quantity):
    logits = np.zeros((3, 1, 4), np.float32)
    logits[0, 0, 0] = logits[1, 0, 1] = logits[2, 0, 1] = 25.0
    logits[:, 0, 3] = [0.5, -0.25, 0.0]
    expected = exact_cotangent(quantity, logits[:, 0], 2.0)
    got = perturbations.QUANTITIES[quantity](
        jax.random.key(0), jnp.asarray(logits), 2.0
    )
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)


def test_random_cotangents_are_those_of_their_own_weights():
    logits = np.random.default_rng(0).normal(size=(3, 1, 4)).astype(np.float32)
    key = jax.random.key(5)
    w = np.asarray(jax.random.uniform(key, logits.shape, minval=-1, maxval=1))
    as_decimals = [[decimal.Decimal(float(v)) for v in row] for row in w[:, 0]]
    ods_w = exact_cotangent("ods", logits[:, 0], 1.5, as_decimals)
    got = objectives.random_output(key, jnp.asarray(logits), 1.5)
    np.testing.assert_allclose(got[:, 0], ods_w, atol=1e-5)
    centred = w - w.mean(0)
    as_decimals = [[decimal.Decimal(float(v)) for v in row] for row in centred[:, 0]]
    projected = exact_cotangent("projection", logits[:, 0], 1.5, as_decimals)
    got = objectives.projection(key, jnp.asarray(logits), 1.5)
    np.testing.assert_allclose(got[:, 0], projected, atol=1e-5)


def test_variance_gradient_equals_autodiff_of_the_variance():
    logits_fn, x = mlp_members(4, margin=1.0), inputs()

    def value(x):
        probs = jax.nn.softmax(logits_fn(x) / 2.0, axis=-1)
        return jnp.var(probs, axis=0).sum()

    gradient = jax.grad(value)(x)
    moved = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.01, temperature=2.0
    )
    np.testing.assert_allclose(cosines(moved - x, gradient), 1.0, atol=1e-5)


# --- the moves ------------------------------------------------------------------


class MovesTest(chex.TestCase):
    @chex.all_variants(without_device=False)
    def test_gaussian_by_hand(self):
        key, x = jax.random.key(3), inputs()
        move = self.variant(
            lambda k, x: perturbations.gaussian(k, None, x, step_size=0.1)
        )
        expected = jnp.clip(x + 0.1 * jax.random.normal(key, x.shape), 0, 1)
        np.testing.assert_allclose(move(key, x), expected, atol=1e-6)

    @chex.all_variants(without_device=False)
    def test_ods_by_hand_on_a_linear_network(self):
        # f(x) = W x, so the gradient is W^T diag(p)(w - <w>), with D = 2.
        weights = np.array([[1.0, -2.0], [0.5, 1.5], [-1.0, 0.25]])
        x = np.array([[0.4, 0.6], [0.5, 0.5]])
        key = jax.random.key(11)
        w = np.asarray(jax.random.uniform(key, (1, 2, 3), minval=-1, maxval=1))[0]
        logits = x @ weights.T / 2.0
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        g = (p * (w - (p * w).sum(1, keepdims=True))) @ weights
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        logits_fn = lambda x: x @ jnp.asarray(weights, jnp.float32).T  # noqa: E731
        args = (logits_fn, jnp.asarray(x, jnp.float32))
        for fn, scale in (
            (perturbations.ods, 1.0),
            (perturbations.conf_ods, p.max(1, keepdims=True)),
        ):
            move = self.variant(
                lambda k, fn=fn: fn(k, *args, step_size=0.05, temperature=2.0)
            )
            expected = x + 0.05 * math.sqrt(2) * scale * unit
            np.testing.assert_allclose(move(key), expected, atol=1e-6)

    @chex.all_variants(without_device=False)
    def test_disagreement_by_hand_with_two_linear_members(self):
        # Two classes, two members: Var = (a - b)^2 / 2 for p_1 = a and b, so the
        # gradient is along (a - b)(a' w_1 - b' w_2), a' = a (1 - a) for logit w.x.
        w1, w2 = np.array([2.0, -1.0]), np.array([0.5, 1.0])
        x = np.array([[0.3, 0.6]])

        def logits_fn(x):
            z = jnp.stack([x @ jnp.asarray(w, jnp.float32) for w in (w1, w2)])
            return jnp.stack([z, jnp.zeros_like(z)], axis=-1)

        a, b = (1 / (1 + np.exp(-x[0] @ w)) for w in (w1, w2))
        g = (a - b) * (a * (1 - a) * w1 - b * (1 - b) * w2)
        expected = x[0] + 0.02 * math.sqrt(2) * g / np.linalg.norm(g)
        move = self.variant(
            lambda k, x: perturbations.disagreement(k, logits_fn, x, step_size=0.02)
        )
        got = move(jax.random.key(0), jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_ods_moves_exactly_eta_root_d():
    x = inputs(shape=(5, 4, 3))
    logits_fn = lambda x: mlp_members(1, margin=2.0, dim=60)(x)[0]  # noqa: E731
    moved = perturbations.ods(jax.random.key(0), logits_fn, x, step_size=4 / 255)
    np.testing.assert_allclose(flat_norm(moved - x), 4 / 255 * math.sqrt(60), rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("num_members", range(2, 8))
def test_equal_members_leave_x_exactly(num_members, quantity, num_steps):
    one = mlp_members(1, margin=3.0)
    logits_fn = lambda x: jnp.repeat(one(x), num_members, axis=0)  # noqa: E731
    x = inputs()
    move = jax.jit(
        lambda k, x: perturbations.disagreement(
            k, logits_fn, x, step_size=0.1, quantity=quantity, num_steps=num_steps
        )
    )
    np.testing.assert_array_equal(move(jax.random.key(0), x), x)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_members_equal_up_to_rounding_leave_x_exactly(quantity):
    one = mlp_members(1, margin=12.0)

    def logits_fn(x):
        logits = one(x)
        ulp = jnp.finfo(jnp.float32).eps * jnp.abs(logits).max(-1, keepdims=True)
        return jnp.concatenate([logits, logits + ulp, logits - ulp])

    x = inputs()
    moved = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.1, quantity=quantity
    )
    np.testing.assert_array_equal(moved, x)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_equal_members_far_from_zero_and_tempered_leave_x_exactly(quantity):
    """Dividing -1e4 by 2.5 rounds by much more than the differences between classes."""
    logits = jnp.full((3, 4, 5), -1e4)
    cotangent = jax.jit(perturbations.QUANTITIES[quantity], static_argnums=2)
    assert not cotangent(jax.random.key(0), logits, 2.5).any()
    traced = jax.jit(perturbations.QUANTITIES[quantity])
    assert not traced(jax.random.key(0), logits, 2.5).any()


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("margin", [10.0, 20.0, 40.0, 1e4])
def test_saturated_members_still_move(margin, quantity):
    logits_fn, x = mlp_members(4, margin=margin), inputs(batch=64)
    moved = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.01, quantity=quantity
    )
    np.testing.assert_allclose(flat_norm(moved - x), 0.01 * math.sqrt(12), rtol=1e-3)


@pytest.mark.parametrize("margin", [10.0, 20.0, 40.0])
def test_saturated_direction_is_the_float64_direction(margin):
    logits_fn, x = mlp_members(4, margin=margin), inputs(batch=64)
    moved = perturbations.disagreement(jax.random.key(0), logits_fn, x, step_size=0.01)
    # In float64 with the top class's deviation as minus the others' sum; the
    # common factor e^-margin is left out.
    with jax.enable_x64(True):
        x64 = jnp.asarray(np.asarray(x), jnp.float64)
        logits, pull_back = jax.vjp(logits_fn, x64)
        p = np.asarray(jax.nn.softmax(logits, axis=-1))
        d = p - p.mean(0)
        d[..., 0] = -d[..., 1:].sum(-1)
        u = p * (d - (p * d).sum(-1, keepdims=True))
        u[..., 0] = -u[..., 1:].sum(-1)
        (direction,) = pull_back(jnp.asarray(u / np.abs(u).max((0, 2), keepdims=True)))
    assert np.median(cosines(moved - x, direction)) > 0.999


def test_steps_stay_in_the_ball_and_the_box_and_raise_the_variance():
    logits_fn = mlp_members(4, margin=2.0)
    x = inputs().at[:, 0].set(0.001).at[:, 1].set(0.999)
    radius = 0.05 * math.sqrt(12)

    def variance(x):
        return jnp.var(jax.nn.softmax(logits_fn(x), axis=-1), axis=0).sum(-1)

    one, many = (
        perturbations.disagreement(
            jax.random.key(0), logits_fn, x, step_size=0.05, num_steps=n, step_length=s
        )
        for n, s in ((1, None), (8, radius / 3))
    )
    for moved in (one, many):
        assert flat_norm(moved - x).max() <= radius * (1 + 1e-5)
        assert moved.min() >= 0 and moved.max() <= 1
        assert (variance(moved) > variance(x)).all()
    assert variance(many).mean() > variance(one).mean()


def test_no_gradient_flows_into_the_moved_input():
    logits_fn, x = mlp_members(3), inputs()
    single = lambda x: logits_fn(x)[0]  # noqa: E731
    for fn, view in (
        (perturbations.gaussian, None),
        (perturbations.ods, single),
        (perturbations.conf_ods, single),
        (perturbations.disagreement, logits_fn),
    ):
        total = lambda x: fn(jax.random.key(0), view, x, step_size=0.01).sum()  # noqa: B023, E731
        np.testing.assert_array_equal(jax.grad(total)(x), jnp.zeros_like(x))


def test_inputs_without_a_direction_stay_and_nothing_is_nan():
    x = inputs(batch=3)

    def logits_fn(x):  # flat for example 0, infinite slope for example 1
        slope = jnp.array([0.0, jnp.inf, 1.0])[:, None]
        z = jnp.where(slope > 0, slope, 0) * x.reshape(3, -1)[:, :4]
        return jnp.stack([z, 2 * z])

    for moved in (
        perturbations.disagreement(jax.random.key(0), logits_fn, x, step_size=0.01),
        perturbations.ods(
            jax.random.key(0), lambda x: logits_fn(x)[1], x, step_size=0.01
        ),
    ):
        np.testing.assert_array_equal(moved[:2], x[:2])
        assert np.isfinite(moved).all()
        assert (moved[2] != x[2]).any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_low_precision_inputs_keep_their_dtype(dtype):
    x = inputs().astype(dtype)
    moved = perturbations.disagreement(
        jax.random.key(0), mlp_members(3, margin=10.0), x, step_size=0.05
    )
    assert moved.dtype == dtype and (moved != x).any() and np.isfinite(moved).all()


def test_unit_survives_tiny_and_huge_gradients():
    direction = jnp.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [jnp.nan, 1.0]])
    expected = [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(geometry.unit(direction), expected, rtol=1e-6)


# --- a pair of teachers and their students --------------------------------------


def divergence(logits_fn, held, x):
    """H(p_j, p_i) [B] in float64, member j as it is at `held`."""

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

    def ascended(moved):
        value = divergence(teachers, x, moved)
        return value - divergence(students, x, moved) if with_students else value

    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros(x.shape)
        step[(slice(None), *place)] = 1e-2
        difference = ascended(jnp.float32(x + step)) - ascended(jnp.float32(x - step))
        gradient[(slice(None), *place)] = difference / 2e-2
    moved = perturbations.tdiv_sdiv(jax.random.key(0), logits_fn, x, step_size=1e-2)
    assert cosines(moved - x, gradient).min() > 0.999
    np.testing.assert_allclose(flat_norm(moved - x), 1e-2 * math.sqrt(12), rtol=1e-4)


@pytest.mark.parametrize("margin", [0.0, 30.0, 300.0])
def test_tdiv_sdiv_weighs_both_pairs_at_any_margin(margin):
    pair, x = mlp_members(2, margin), inputs()
    both = perturbations.tdiv_sdiv(
        jax.random.key(0), lambda x: (pair(x), pair(x)), x, step_size=0.01
    )
    np.testing.assert_array_equal(both, x)  # as diverse: nothing to raise
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


def test_tdiv_sdiv_draws_one_pair_for_teachers_and_student():
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
        # A student that equals its teachers is as diverse as they are.
        np.testing.assert_array_equal(perturb(key, x, teachers, all_logits), x)
        assert (alone != x).any()
    assert pairs == {(i, j) for i in range(3) for j in range(3) if i != j}
    one = FakeTeachers(1, None, lambda m, x: all_logits(x)[0])
    np.testing.assert_array_equal(perturb(key, x, one), x)


# --- the registry ---------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(perturbations.PERTURBATIONS))
def test_bound_perturbations(name):
    all_logits, x = mlp_members(3), inputs()
    teachers = FakeTeachers(3, all_logits, lambda m, x: all_logits(x)[m])
    config = {"perturbation": name, "step_size": 0.01, "num_steps": 2, "alpha": 0.9}
    perturb = perturbations.create_perturbation(config)
    moved = jax.jit(lambda k, x: perturb(k, x, teachers))(jax.random.key(0), x)
    again = jax.jit(lambda k, x: perturb(k, x, teachers))(jax.random.key(0), x)
    np.testing.assert_array_equal(moved, again)
    assert (moved == x).all() == (name == "none")
    if name == "none":
        assert perturb(jax.random.key(0), x, teachers) is x
    read = []

    def student(x):
        read.append(x)
        return all_logits(x)

    perturb(jax.random.key(0), x, teachers, student)
    assert bool(read) == perturbations.PERTURBATIONS[name].uses_student


def test_random_members_are_some_that_differ_drawn_anew():
    logits_fn = mlp_members(4)
    teachers = FakeTeachers(4, logits_fn, lambda m, x: logits_fn(x)[m])
    config = {"perturbation": "disagreement", "step_size": 0.02}
    perturb = perturbations.create_perturbation({**config, "random_members": 2})
    x = inputs()
    pairs = [(i, j) for i in range(4) for j in range(i)]
    moves = [  # the variance of two does not depend on their order
        perturbations.disagreement(
            jax.random.key(0),
            lambda x, p=p: logits_fn(x)[jnp.array(p)],
            x,
            step_size=0.02,
        )
        for p in pairs
    ]
    found = set()
    for seed in range(24):
        moved = perturb(jax.random.key(seed), x, teachers)
        errors = [float(jnp.abs(moved - move).max()) for move in moves]
        assert min(errors) < 1e-6
        found.add(int(np.argmin(errors)))
    assert len(found) > 3

    of_all = perturbations.create_perturbation({**config, "random_members": 4})
    all_of = perturbations.create_perturbation(config)
    key = jax.random.key(1)
    chex.assert_trees_all_equal(of_all(key, x, teachers), all_of(key, x, teachers))
    for number in (0, 1, 5):
        refused = perturbations.create_perturbation(
            {**config, "random_members": number}
        )
        with pytest.raises(InputError, match=f"random_members={number}.*2 to.*4"):
            refused(key, x, teachers)


def test_ods_draws_every_member():
    seen = set()
    teachers = FakeTeachers(4, None, lambda m, x: seen.add(int(m)) or x)
    perturb = perturbations.create_perturbation(
        {"perturbation": "ods", "step_size": 0.1}
    )
    for seed in range(40):
        perturb(jax.random.key(seed), inputs(batch=2, shape=(3,)), teachers)
    assert seen == {0, 1, 2, 3}


def test_mixup_lies_between_two_inputs_of_the_batch():
    x = inputs(batch=6)
    moved = perturbations.mixup(jax.random.key(0), None, x)
    flat, ends = moved.reshape(6, -1), x.reshape(6, -1)
    partners, shares = [], []
    for i in range(6):
        fits = []
        for j in range(6):
            if i == j:
                continue
            line = ends[i] - ends[j]
            share = jnp.vdot(flat[i] - ends[j], line) / jnp.vdot(line, line)
            error = jnp.abs(share * ends[i] + (1 - share) * ends[j] - flat[i]).max()
            fits.append((float(error), j, float(share)))
        error, j, share = min(fits)
        assert error < 1e-6
        shares.append(share)
        partners.append(i if abs(share - 1) < 1e-6 else j)
    assert sorted(partners) == list(range(6))  # each is mixed in once
    assert all(0 <= share <= 1 + 1e-6 for share in shares)
    assert len({round(share, 4) for share in shares}) > 3  # one for each example
    alone = perturbations.mixup(jax.random.key(0), None, x[:1])
    np.testing.assert_allclose(alone, x[:1], atol=1e-6)


@pytest.mark.parametrize(("alpha", "mean_square"), [(1.0, 1 / 12), (0.2, 1 / 5.6)])
def test_mixup_draws_its_shares_from_a_beta_distribution(alpha, mean_square):
    x = jnp.arange(2000.0).reshape(-1, 1) % 2  # half of the pairs are one 0, one 1
    moved = perturbations.mixup(jax.random.key(1), None, x, mixup_alpha=alpha)
    mixed = moved[(moved > 0) & (moved < 1)]
    assert abs(len(mixed) - 1000) < 100
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert float(jnp.square(mixed - 0.5).mean()) == pytest.approx(mean_square, rel=0.1)


def test_labels_are_mixed_as_the_inputs_are_by_hand():
    key = jax.random.key(1)
    share_key, order_key = jax.random.split(key)
    a, b, c = np.float64(jax.random.beta(share_key, 0.5, 0.5, (3,)))
    np.testing.assert_array_equal(jax.random.permutation(order_key, 3), [2, 0, 1])
    labels = perturbations.mix_labels(key, jnp.eye(3), mixup_alpha=0.5)
    expected = [[a, 0, 1 - a], [1 - b, b, 0], [0, 1 - c, c]]
    np.testing.assert_allclose(labels, expected, atol=1e-7)
    x = jnp.array([[0.0], [0.5], [1.0]])
    moved = perturbations.mixup(key, None, x, mixup_alpha=0.5)
    expected = [[1 - a], [b / 2], [(1 - c) / 2 + c]]
    np.testing.assert_allclose(moved, expected, atol=1e-7)
    # What is the same label twice stays it; λ is the same at every dtype.
    for dtype in (jnp.float16, jnp.float32):
        same = perturbations.mix_labels(key, jnp.eye(4, dtype=dtype)[jnp.ones(3, int)])
        np.testing.assert_allclose(same, jnp.eye(4)[jnp.ones(3, int)], atol=1e-7)
        assert same.dtype == jnp.float32


def test_mixtures_are_the_same_in_double_precision():
    key, x = jax.random.key(4), jnp.eye(3)
    single = perturbations.mixup(key, None, x)
    with jax.enable_x64(True):
        double = perturbations.mixup(key, None, jnp.eye(3, dtype=jnp.float64))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, single, atol=1e-7)


def test_what_a_perturbation_is_survives_jit_and_wraps_and_chains():
    def create(name):
        return perturbations.create_perturbation(
            {"perturbation": name, "step_size": 0.1, "mixup_alpha": 0.5}
        )

    for name in [*perturbations.PERTURBATIONS, "none+none", "none+ods", "ods+mixup"]:
        perturb, parts = create(name), set(name.split("+"))
        for fn in (perturb, jax.jit(perturb), functools.wraps(perturb)(lambda *a: a)):
            assert fn.identity == (parts == {"none"})
            assert (fn.mix_labels is not None) == ("mixup" in parts)
    key, probs = jax.random.key(3), jnp.eye(5)
    first, second = jax.random.split(key)
    one = create("mixup").mix_labels
    np.testing.assert_array_equal(
        create("ods+mixup").mix_labels(key, probs), one(second, probs)
    )
    both = create("mixup+mixup").mix_labels(key, probs)
    np.testing.assert_array_equal(both, one(second, one(first, probs)))
    assert (both != one(second, probs)).any()


def test_joined_perturbations_move_one_after_the_other():
    all_logits, x = mlp_members(3), inputs(batch=5)
    teachers = FakeTeachers(3, all_logits, lambda m, x: all_logits(x)[m])
    config = {"perturbation": "mixup+disagreement", "step_size": 0.01}
    joined = perturbations.create_perturbation(config)
    one, two = (
        perturbations.create_perturbation({**config, "perturbation": name})
        for name in ("mixup", "disagreement")
    )
    key = jax.random.key(3)
    first, second = jax.random.split(key)
    expected = two(second, one(first, x, teachers), teachers)
    np.testing.assert_array_equal(joined(key, x, teachers), expected)
    assert (expected != one(first, x, teachers)).any()
    plain = perturbations.create_perturbation({"perturbation": "none+none"})
    assert plain(key, x, teachers) is x


def test_unknown_names_are_refused():
    for name in ("odds", "mixup+odds", "ods+", ""):
        with pytest.raises(InputError, match=rf"perturbation='{re.escape(name)}'.*ods"):
            perturbations.create_perturbation({"perturbation": name})
    with pytest.raises(InputError, match="mixup_alpha=0"):
        perturbations.mixup(jax.random.key(0), None, inputs(), mixup_alpha=0)
    with pytest.raises(InputError, match="mixup_alpha=0"):
        perturbations.mix_labels(jax.random.key(0), jnp.eye(2), mixup_alpha=0)
    with pytest.raises(InputError, match=r"quantity='var'.*variance"):
        perturbations.disagreement(
            jax.random.key(0), mlp_members(2), inputs(), step_size=0.1, quantity="var"
        )
    with pytest.raises(InputError, match="num_steps=0"):
        perturbations.disagreement(
            jax.random.key(0), mlp_members(2), inputs(), step_size=0.1, num_steps=0
        )


# --- inputs in other units -----------------------------------------------------

MEAN, STD = np.array([0.4, 0.5, 0.45]), np.array([0.2, 0.25, 0.3])  # per channel
UNITS = {
    "ods": {},
    "conf_ods": {"temperature": 2.0},
    "disagreement": {},
    "disagreement steps": {"num_steps": 3, "step_length": 0.2},
    "gaussian": {},
    "tdiv_sdiv": {},
}


@pytest.mark.parametrize("case", sorted(UNITS))
def test_normalised_inputs_are_perturbed_like_the_pixels(case):
    """Perturb, then normalise = normalise, then perturb with `scale` = 1 / std."""
    name, key = case.split()[0], jax.random.key(2)
    perturb = functools.partial(
        getattr(perturbations, name), key, step_size=0.1, **UNITS[case]
    )
    all_logits = mlp_members(2)

    def normalise(pixels):
        return (pixels - jnp.float32(MEAN)) / jnp.float32(STD)

    def logits_fn(x):  # of a model that takes normalised inputs
        logits = all_logits(x)
        if name == "tdiv_sdiv":
            return logits, None
        return logits[0] if name.endswith("ods") else logits

    # At 0.02 and 0.98 some elements are clipped, at different values per channel.
    pixels = inputs(shape=(2, 2, 3)).at[:, 0].set(0.02).at[:, 1, 0].set(0.98)
    expected = normalise(perturb(lambda x: logits_fn(normalise(x)), pixels))
    clip = ((0 - MEAN) / STD, (1 - MEAN) / STD)
    found = perturb(logits_fn, normalise(pixels), clip=clip, scale=1 / STD)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (jnp.abs(found - normalise(pixels)) > 0.01).any()
    assert ((found < clip[0] + 1e-5) | (found > clip[1] - 1e-5)).any()
    # Without `scale` the step is another one.
    other = perturb(logits_fn, normalise(pixels), clip=clip)
    assert jnp.abs(other - expected).max() > 1e-2
    # Pixels of 0 to 255, and a scale of 1 that changes no bit.
    byte = perturb(lambda x: logits_fn(x / 255), 255 * pixels, clip=(0, 255), scale=255)
    of_pixels = perturb(logits_fn, pixels)
    np.testing.assert_allclose(byte / 255, of_pixels, atol=2e-5)
    np.testing.assert_array_equal(perturb(logits_fn, pixels, scale=1.0), of_pixels)


def every_perturbation(**settings):
    """(name, x -> x̃) of each, on members of 12 inputs."""
    all_logits = mlp_members(2)
    teachers = FakeTeachers(2, all_logits, lambda m, x: all_logits(x)[m])
    for name in perturbations.PERTURBATIONS:
        config = {"perturbation": name, "step_size": 0.05, **settings}
        perturb = perturbations.create_perturbation(config)
        yield name, lambda x, p=perturb: p(jax.random.key(0), x, teachers)


def test_integer_inputs_are_refused_inside_and_outside_jit():
    for dtype in (jnp.uint8, jnp.int32, bool):
        x = jnp.ones((4, 3, 4), dtype)
        for name, perturb in every_perturbation():
            for fn in (perturb, jax.jit(perturb)):
                if name == "none":
                    np.testing.assert_array_equal(fn(x), x)
                    continue
                with pytest.raises(InputError, match=f"{x.dtype}; accepted: float"):
                    fn(x)


def test_inputs_outside_clip_are_refused_where_their_values_are_known():
    x = inputs(batch=4)
    for name, perturb in every_perturbation():
        if name == "none":
            assert perturb(2 * x) is not None
            continue
        for wrong in (255 * x, x - 0.5, np.asarray(x).copy() + 1):
            with pytest.raises(InputError, match=r"outside clip=\(0\.0, 1\.0\); acc"):
                perturb(wrong)
            with pytest.raises(InputError, match="outside clip"):
                jax.jit(lambda p=perturb, w=wrong: p(w))()  # a constant
        assert jax.jit(perturb)(255 * x).max() == 1  # traced values are not known
        perturb(x.at[0, 0].set(-5e-4).at[0, 1].set(1 + 5e-4))  # within the tolerance
        perturb(jnp.bfloat16(x).at[0, 0].set(1 + 2**-7))  # one step of its dtype


def test_a_clip_of_none_does_not_clip():
    x = inputs().at[:, 0].set(0.0).at[:, 1].set(1.0)
    unclipped = dict(every_perturbation(clip=None))
    for name, perturb in every_perturbation():
        if name in ("none", "mixup"):
            continue
        assert perturb(x).min() >= 0 and perturb(x).max() <= 1
        free = unclipped[name](x)
        assert free.min() < 0 or free.max() > 1
        np.testing.assert_array_equal(jnp.clip(free, 0, 1), perturb(x))
        unclipped[name](255 * x)  # any range is accepted
    # Elsewhere None is the default.
    for name, perturb in every_perturbation(temperature=None, members_at_once=None):
        np.testing.assert_array_equal(perturb(x), dict(every_perturbation())[name](x))


def test_wrong_scales_are_refused():
    x = inputs()
    for scale, message in (
        (jnp.ones(3), r"scale has shape \(3,\); accepted: .* \(4,\)"),
        (np.ones((3, 4)), r"scale has shape \(3, 4\)"),
        (0.0, r"scale=0\.0 is out of range; accepted: positive"),
        (np.array([1, 1, -1, 1]), r"scale=\[1, 1, -1, 1\]"),
        (math.nan, "scale=nan"),
    ):
        with pytest.raises(InputError, match=message):
            perturbations.gaussian(jax.random.key(0), None, x, step_size=1, scale=scale)
    traced = jax.jit(
        lambda scale: perturbations.gaussian(
            jax.random.key(0), None, x, step_size=0.1, scale=scale
        )
    )
    with pytest.raises(InputError, match=r"scale has shape \(2,\)"):
        traced(jnp.ones(2))
    np.testing.assert_array_equal(
        traced(jnp.ones(4)),
        jax.jit(perturbations.gaussian, static_argnums=1)(
            jax.random.key(0), None, x, step_size=0.1
        ),
    )
