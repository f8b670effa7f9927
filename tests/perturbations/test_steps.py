"""Steps: hand-computed values, lengths, saturated and equal members."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_members import cosines, flat_norm, inputs, mlp_members

from edp import perturbations
from edp.perturbations import geometry

QUANTITIES = sorted(perturbations.QUANTITIES)


class StepsTest(chex.TestCase):
    @chex.all_variants(without_device=False)
    def test_gaussian_by_hand(self):
        key, x = jax.random.key(3), inputs()
        step = self.variant(
            lambda k, x: perturbations.gaussian(k, None, x, step_size=0.1)
        )
        expected = jnp.clip(x + 0.1 * jax.random.normal(key, x.shape), 0, 1)
        np.testing.assert_allclose(step(key, x), expected, atol=1e-6)

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
            step = self.variant(
                lambda k, fn=fn: fn(k, *args, step_size=0.05, temperature=2.0)
            )
            expected = x + 0.05 * math.sqrt(2) * scale * unit
            np.testing.assert_allclose(step(key), expected, atol=1e-6)

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
        step = self.variant(
            lambda k, x: perturbations.disagreement(k, logits_fn, x, step_size=0.02)
        )
        got = step(jax.random.key(0), jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_ods_has_length_eta_root_d():
    x = inputs(shape=(5, 4, 3))
    logits_fn = lambda x: mlp_members(1, margin=2.0, dim=60)(x)[0]  # noqa: E731
    step = functools.partial(
        perturbations.ods, jax.random.key(0), logits_fn, step_size=4 / 255
    )
    perturbed = jax.jit(step)(x)
    np.testing.assert_allclose(
        flat_norm(perturbed - x), 4 / 255 * math.sqrt(60), rtol=1e-5
    )


# The means of two members are exact, those of three and seven are not.
NUMBERS = [2, 3, *(pytest.param(m, marks=pytest.mark.long) for m in (4, 5, 6)), 7]


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("num_members", NUMBERS)
def test_equal_members_leave_x_exactly(num_members, quantity, num_steps):
    one = mlp_members(1, margin=3.0)
    logits_fn = lambda x: jnp.repeat(one(x), num_members, axis=0)  # noqa: E731
    x = inputs()
    step = jax.jit(
        lambda k, x: perturbations.disagreement(
            k, logits_fn, x, step_size=0.1, quantity=quantity, num_steps=num_steps
        )
    )
    np.testing.assert_array_equal(step(jax.random.key(0), x), x)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_members_equal_up_to_rounding_leave_x_exactly(quantity):
    one = mlp_members(1, margin=12.0)

    def logits_fn(x):
        logits = one(x)
        ulp = jnp.finfo(jnp.float32).eps * jnp.abs(logits).max(-1, keepdims=True)
        return jnp.concatenate([logits, logits + ulp, logits - ulp])

    x = inputs()
    step = functools.partial(
        *(perturbations.disagreement, jax.random.key(0), logits_fn),
        **{"step_size": 0.1, "quantity": quantity},
    )
    np.testing.assert_array_equal(jax.jit(step)(x), x)


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
def test_saturated_members_still_perturb(margin, quantity):
    logits_fn, x = mlp_members(4, margin=margin), inputs(batch=64)
    perturbed = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.01, quantity=quantity
    )
    np.testing.assert_allclose(
        flat_norm(perturbed - x), 0.01 * math.sqrt(12), rtol=1e-3
    )


@pytest.mark.parametrize("margin", [10.0, 20.0, 40.0])
def test_saturated_direction_is_the_float64_direction(margin):
    logits_fn, x = mlp_members(4, margin=margin), inputs(batch=64)
    perturbed = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.01
    )
    # In float64, with the deviation of the top class as minus the sum of the others
    # and without the common factor e^-margin.
    with jax.enable_x64(True):
        x64 = jnp.asarray(np.asarray(x), jnp.float64)
        logits, pull_back = jax.vjp(logits_fn, x64)
        p = np.asarray(jax.nn.softmax(logits, axis=-1))
        d = p - p.mean(0)
        d[..., 0] = -d[..., 1:].sum(-1)
        u = p * (d - (p * d).sum(-1, keepdims=True))
        u[..., 0] = -u[..., 1:].sum(-1)
        (direction,) = pull_back(jnp.asarray(u / np.abs(u).max((0, 2), keepdims=True)))
    assert np.median(cosines(perturbed - x, direction)) > 0.999


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
    for perturbed in (one, many):
        assert flat_norm(perturbed - x).max() <= radius * (1 + 1e-5)
        assert perturbed.min() >= 0 and perturbed.max() <= 1
        assert (variance(perturbed) > variance(x)).all()
    assert variance(many).mean() > variance(one).mean()


def test_no_gradient_flows_into_the_perturbed_input():
    logits_fn, x = mlp_members(3), inputs()
    single = lambda x: logits_fn(x)[0]  # noqa: E731
    for fn, logits in (
        (perturbations.gaussian, None),
        (perturbations.ods, single),
        (perturbations.conf_ods, single),
        (perturbations.disagreement, logits_fn),
    ):
        total = lambda x: fn(jax.random.key(0), logits, x, step_size=0.01).sum()  # noqa: B023, E731
        gradient = jax.jit(jax.grad(total))(x)
        np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


def test_inputs_without_a_gradient_stay_finite_and_unchanged():
    x = inputs(batch=3)

    def logits_fn(x):  # flat for example 0, infinite slope for example 1
        slope = jnp.array([0.0, jnp.inf, 1.0])[:, None]
        z = jnp.where(slope > 0, slope, 0) * x.reshape(3, -1)[:, :4]
        return jnp.stack([z, 2 * z])

    for fn, logits in (
        (perturbations.disagreement, logits_fn),
        (perturbations.ods, lambda x: logits_fn(x)[1]),
    ):
        step = functools.partial(fn, jax.random.key(0), logits, step_size=0.01)
        perturbed = jax.jit(step)(x)
        np.testing.assert_array_equal(perturbed[:2], x[:2])
        assert np.isfinite(perturbed).all()
        assert (perturbed[2] != x[2]).any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_low_precision_inputs_keep_their_dtype(dtype):
    x = inputs().astype(dtype)
    perturbed = perturbations.disagreement(
        jax.random.key(0), mlp_members(3, margin=10.0), x, step_size=0.05
    )
    assert (
        perturbed.dtype == dtype
        and (perturbed != x).any()
        and np.isfinite(perturbed).all()
    )


def test_short_steps_add_up_in_low_precision():
    x = (0.5 + 0.5 * inputs(batch=16)).astype(jnp.bfloat16)
    wide = x.astype(jnp.float32)

    def length(x, num_steps):
        perturbed = perturbations.disagreement(
            *(jax.random.key(0), mlp_members(3), x), step_size=0.01, num_steps=num_steps
        )
        return flat_norm(perturbed.astype(jnp.float32) - wide).mean()

    # Ten steps of 0.001 are each below half a rounding step of bfloat16 at 0.5.
    np.testing.assert_allclose(length(x, 10), length(wide, 10), rtol=0.1)


def test_unit_survives_tiny_and_huge_gradients():
    direction = jnp.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [jnp.nan, 1.0]])
    expected = [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(geometry.unit(direction), expected, rtol=1e-6)
