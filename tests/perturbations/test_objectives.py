"""Cotangents of the quantities against exact decimals and autodiff."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_members import cosines, inputs, mlp_members

from edp import perturbations
from edp.perturbations import objectives


def exact_probs(logits, temperature):
    """Computes probabilities, [M, K] nested lists of Decimal."""
    tau = decimal.Decimal(str(temperature))
    rows = []
    for row in logits:
        powers = [(decimal.Decimal(float(z)) / tau).exp() for z in row]
        rows.append([p / sum(powers) for p in powers])
    return rows


def exact_cotangent(quantity, logits, temperature, weights=None):
    """Computes d quantity / d logits [M, K] from textbook formulas."""
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


@pytest.mark.parametrize("mask", [-1e9, -np.inf])
def test_masked_classes_do_not_hide_the_difference_of_the_others(mask):
    # For two members (p, 1 - p) and (1 - p, p), the gradient of every quantity raises
    # the top class of each.
    logits = jnp.array([[[1.0, 0.0, mask]], [[0.0, 1.0, mask]]])
    for quantity in ("variance", "mutual_information", "pairwise_kl"):
        got = objectives.QUANTITIES[quantity](jax.random.key(0), logits, 1.0)
        expected = [[[1, -1, 0]], [[-1, 1, 0]]]
        np.testing.assert_allclose(got, expected, atol=1e-6)
    got = objectives.projection(jax.random.key(0), logits, 1.0)
    assert (got[..., :2] != 0).all() and (got[..., 2] == 0).all()
    difference, scale = objectives.difference_of_two(logits)
    tanh = np.tanh(0.5)  # p - (1 - p)
    np.testing.assert_allclose(
        difference * jnp.exp(scale), [[tanh, -tanh, 0]], atol=1e-6
    )
    equal = objectives.variance(jax.random.key(0), logits.at[1].set(logits[0]), 1.0)
    np.testing.assert_array_equal(equal, 0)


@pytest.mark.parametrize("margin", [0, 3, 40, 400])
@pytest.mark.parametrize("quantity", ["variance", "mutual_information", "pairwise_kl"])
def test_cotangent_is_exact_at_any_margin(quantity, margin):
    rng = np.random.default_rng(margin)
    logits = rng.normal(size=(4, 1, 5)).astype(np.float32)
    logits[:, :, 2] += margin
    # The reference is the gradient at the float32 logits.
    expected = exact_cotangent(quantity, logits[:, 0], 1.0)
    got = perturbations.QUANTITIES[quantity](
        jax.random.key(0), jnp.asarray(logits), 1.0
    )
    # float32 represents a logit of 400 to 3e-5, and so the differences.
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
    perturbed = perturbations.disagreement(
        jax.random.key(0), logits_fn, x, step_size=0.01, temperature=2.0
    )
    np.testing.assert_allclose(cosines(perturbed - x, gradient), 1.0, atol=1e-5)
