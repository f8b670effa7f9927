"""MIMO students against the students and values that they reduce to."""

import functools

import compiled
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax import linen as nn

from edp import models, students
from edp.students.mimo import _Mimo
from edp.students.student import DistillBatch

B, K = 5, 4
X = jax.random.uniform(jax.random.key(0), (B, 6, 6, 2))
LABEL = jnp.arange(B) % K


class Net(models.Classifier):
    """One convolution with batch normalisation."""

    def feature_maps(self, x, conv, norm, drop):
        return jax.nn.relu(norm(name="norm")(conv(3, name="conv")(x)))


build_model = functools.partial(Net, num_classes=K, mean=(0.5, 0.3), std=(0.25, 0.5))


def create(kind, num_members, *, build=build_model, **settings):
    defaults = {"alpha": 0.7, "temperature": 2.0, "hydra_single_share": 0.0}
    return students.create_student(
        {"student": kind, "mimo_repetitions": 1, **defaults, **settings},
        build,
        num_members=num_members,
        training_steps=10,
    )


def initial(student):
    variables = jax.jit(student.init)(jax.random.key(1), X[:1])
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.random(x.shape, np.float32), variables)


def inner(variables):
    """Returns the variables of the network inside."""
    return {name: tree["network"] for name, tree in variables.items()}


def batch(num_members):
    logits = 2 * jax.random.normal(jax.random.key(3), (num_members, B, K))
    return DistillBatch(X, LABEL, X[::-1], logits, jnp.int32(0))


def loss(student, variables, batch):
    @jax.jit
    def compute(variables):
        total, (state, metrics) = student.loss(variables, batch, jax.random.key(2))
        return total, state, metrics

    return compute(variables)


class Means(nn.Module):
    """Logits of head m: the mean of image m in each class."""

    @nn.compact
    def __call__(self, x, train):
        means = x.reshape(*x.shape[:3], -1, 2).mean(axis=(1, 2, 4))
        return jnp.broadcast_to(means.T[..., None], (*means.T.shape, K))


def test_logits_return_in_the_order_of_the_images():
    model = _Mimo(Means(), num_members=3, repetitions=2)
    rngs = {"dropout": jax.random.key(0)}
    trained = model.apply({}, X, train=True, rngs=rngs)
    expected = np.broadcast_to(X.mean(axis=(1, 2, 3))[:, None], (B, K))
    assert trained.shape == (6, B, K)
    for logits in (*trained, *model.apply({}, X, train=False)):
        np.testing.assert_allclose(logits, expected, rtol=1e-6)


def test_heads_see_other_images_in_training():
    seen = []

    class Record(Means):
        def __call__(self, x, train):
            seen.append(np.asarray(x).reshape(B, 6, 6, 3, 2))
            return super().__call__(x, train)

    rngs = {"dropout": jax.random.key(0)}
    _Mimo(Record(), num_members=3).apply({}, X, train=True, rngs=rngs)
    places = np.moveaxis(seen[0], 3, 0)
    orders = [
        [int(np.argmin(np.abs(X - row).sum(axis=(1, 2, 3)))) for row in place]
        for place in places
    ]
    assert all(sorted(order) == list(range(B)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_one_member_is_a_single_student():
    mimo, single = create("mimo", 1), create("single", 1)
    variables = initial(mimo)
    plain = inner(variables)
    plain["params"] = {
        **plain["params"],
        "head": jax.tree.map(lambda x: x[0], plain["params"]["head"]),
    }
    total, state, metrics = loss(mimo, variables, batch(1))
    expected, plain_state, plain_metrics = loss(single, plain, batch(1))
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for found, wanted in ((inner(state), plain_state), (metrics, plain_metrics)):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4), found, wanted
        )
    np.testing.assert_allclose(
        mimo.predict(variables, X), single.predict(plain, X), rtol=1e-5
    )


def test_with_equal_images_in_all_places_it_is_a_hydra(monkeypatch):
    """A convolution of M equal images has the sum of their kernels."""
    mimo, hydra = create("mimo", 3), create("hydra", 3)
    variables = initial(mimo)
    plain = inner(variables)
    kernel = plain["params"]["conv"]["kernel"].reshape(3, 3, 3, 2, 3).sum(axis=2)
    plain["params"] = {**plain["params"], "conv": {"kernel": kernel}}
    np.testing.assert_allclose(
        mimo.predict(variables, X), hydra.predict(plain, X), rtol=1e-4
    )
    monkeypatch.setattr(jax.random, "permutation", lambda key, n: jnp.arange(n))
    found, expected = loss(mimo, variables, batch(3)), loss(hydra, plain, batch(3))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


@pytest.mark.parametrize("network", ["convolution", "patches"])
def test_a_prediction_is_that_of_an_image_in_all_places(network):
    build = build_model
    if network == "patches":
        vit = {"name": "vit", "depth": 1, "width": 8, "heads": 2, "patch_size": 3}
        build = functools.partial(
            *(models.create_model, ml_collections.ConfigDict(vit)),
            **{"num_classes": K, "mean": (0.5, 0.3), "std": (0.25, 0.5)},
        )
    student = create("mimo", 3, build=build)
    variables = initial(student)
    tiled = _Mimo(build(num_heads=3, num_images=3), num_members=3)
    expected = jax.nn.softmax(compiled.logits(tiled, variables, X))
    found = jax.jit(student.predict)(variables, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_repetitions_average_over_draws():
    """With batch normalisation over equal rows, a repetition of one image is itself."""
    once, twice = create("mimo", 2), create("mimo", 2, mimo_repetitions=2)
    variables = initial(once)
    one = DistillBatch(
        X[:1], LABEL[:1], None, batch(2).teacher_logits[:, :1], jnp.int32(0)
    )
    found, expected = loss(twice, variables, one), loss(once, variables, one)
    assert found[0].shape == (1,)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    assert once.inference_cost == twice.inference_cost == 1.0
    assert twice.predict(variables, X).shape == (2, B, K)
