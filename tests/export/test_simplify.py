"""Tests of simplified programs: the same outputs from fewer operations."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained_runs import draw

from edp import export, models
from edp.export import graph
from edp.export.simplify import simplify
from edp.metrics import uncertainty
from edp.models import native

SETTINGS = {"num_classes": 3, "mean": (0.5, 0.4, 0.6), "std": (0.2, 0.3, 0.25)}
# Network, its convolutions, and its batch normalisations that follow no layer.
NETWORKS = {
    "convnet": ({"width": 4}, 3, 0),
    "resnet": ({"depth": 8, "width": 4, "stem_strides": 2}, 7, 0),
    # The first normalisation of each block is of a sum, and so is the last one.
    "wide_resnet": ({"depth": 10, "widen_factor": 1}, 9, 4),
    "resnet50": ({"blocks": (1, 1)}, 9, 0),
}


@pytest.fixture(autouse=True)
def without_native_kernels():
    """Traces networks as an export does."""
    with native.disabled():
        yield


def operations(program, images):
    """Counts the primitives of a traced program."""
    return collections.Counter(
        operation.name for operation in graph.trace(program, images).operations
    )


def create(name, settings):
    """Returns a network's member logits, with random variables, and images."""
    model = models.MODELS[name](**SETTINGS, **settings)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    x = jnp.zeros((1, 16, 16, 3))
    variables = draw(
        jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False)), 0
    )

    def logits(variables, x):
        found = model.apply(variables, x, train=False)
        return found if found.ndim == 3 else found[None]

    return logits, variables, images


def as_program(logits, variables):
    return export.create_program(
        lambda variables, x: jax.nn.softmax(logits(variables, x)),
        lambda variables, x: uncertainty.all_scores(logits(variables, x)),
        variables,
        1.3,
    )


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_normalisation_is_folded(name, members):
    settings, convolutions, left = NETWORKS[name]
    logits, variables, images = create(name, {**settings, "num_members": members})
    x = images / np.float32(255)
    wanted = jax.jit(logits)(variables, x)
    variables = jax.tree.map(np.asarray, variables)
    found = jax.jit(simplify(lambda x: logits(variables, x)))(x)
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max(), rtol=0)

    counts = operations(as_program(logits, variables), images)
    # One network, though its probabilities and its scores both compute it.
    assert counts["conv_general_dilated"] == convolutions
    assert not counts["rsqrt"] + counts["gather"]
    # The mean and the variance of images take one multiplication, and so does each
    # normalisation without a layer before it; the members' factors take two a layer.
    factors = 2 * (convolutions + 1) if members else 0
    means = as_program(lambda _, x: jnp.stack((members or 1) * [x.mean((1, 2))]), None)
    tail = operations(means, images)
    assert counts["mul"] - tail["mul"] == 1 + left + factors


def test_a_folded_layer_has_the_product_of_weights_and_factors():
    weights = np.array([[1, 2], [3, 4]], np.float32)
    mean, factor, bias = np.float32([[1, 2], [10, 100], [5, 6]])

    def program(x):
        return ((x @ weights) - mean) * factor + bias

    x = np.eye(2, dtype=np.float32)
    simplified = simplify(program)
    (dot, add) = jax.make_jaxpr(simplified)(x).eqns
    assert dot.primitive.name == "dot_general" and add.primitive.name == "add"
    # [[1-1, 2-2], [3-1, 4-2]] · [10, 100] + [5, 6]
    np.testing.assert_array_equal(simplified(x), [[5, 6], [25, 206]])


def test_a_value_that_is_used_twice_keeps_its_scale():
    weights = np.array([[1, 2], [3, 4]], np.float32)

    def program(x):
        y = x @ weights
        return {"scaled": y * np.float32([10, 100]), "plain": y}

    found = simplify(program)(np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(found["plain"], weights)
    np.testing.assert_array_equal(found["scaled"], [[10, 200], [30, 400]])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.float32([3, 5]) - x,
        lambda x: x / np.float32([3, 5]) + 1,
        lambda x: np.float32([3, 5]) / x,
        lambda x: jnp.divide(x, np.float32([3, 0])),
        lambda x: x + np.float32([3, -np.inf]),
        lambda x: (2 * x + np.float32([3, 5])) * (x + np.float32([3, 5])),
        lambda x: x + np.float32([[3], [5]]),
        lambda x: (x @ np.float32([[1, 2], [3, 4]]).T * x - 1) * np.float32([3, 5]),
        lambda x: (x.T @ x) * np.float32([3, 5]),
        lambda x: jnp.stack([x, x]) @ np.float32([[1, 2], [3, 4]]) * np.float32([3, 5]),
    ],
)
def test_arithmetic_with_constants_is_kept(function):
    x = np.array([[1, 2], [4, 8]], np.float32)
    np.testing.assert_allclose(simplify(function)(x), function(x), rtol=1e-6)


def test_random_numbers_are_those_of_the_program():
    def program(x):
        first, second = jax.random.split(jax.random.key(1))
        noise = jax.random.normal(first, x.shape)
        return noise + x, noise - jax.random.normal(second, x.shape)

    x = np.ones((2, 3), np.float32)
    for found, wanted in zip(simplify(program)(x), program(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
