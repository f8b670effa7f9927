"""Moments of weights and samples of them, by hand, and after an interruption."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp.runtime import loop, swag
from edp.runtime.feed import TrainingLength, resident_feed
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState

# Weights of two networks after each step; an epoch is two steps.
WEIGHTS = jnp.array([[0, 0], [9, 9], [0, 0], [1, -2], [0, 0], [3, 0], [0, 0], [8, 5.0]])
LENGTH = TrainingLength(
    num_epochs=4, steps_per_epoch=2, images_per_step=1, checkpoint_minutes=0.0
)


def fit(path, should_stop=lambda: False):
    def step(state, resources, inputs):
        params = {"w": WEIGHTS[state.step][:, None] * jnp.array([[1.0, 2.0]])}
        model_state = {"batch_stats": jnp.full((2, 1), state.step + 1.0)}
        return TrainState(state.step + 1, params, model_state, ()), {
            "loss": inputs * 1.0
        }

    start = {"w": jnp.zeros((2, 2))}, {"batch_stats": jnp.zeros((2, 1))}
    return loop.fit(
        step,
        TrainState(jnp.int32(0), *start, ()),
        None,
        resident_feed(lambda epoch: jnp.arange(2)),
        LENGTH,
        Stage(path, {}),
        label="this",
        should_stop=should_stop,
        select=swag.collect(first_epoch=2, rank=2),
    )


def test_moments_by_hand_and_the_same_after_an_interruption(tmp_path):
    moments, record, _ = fit(tmp_path / "whole")
    assert record["collected_epochs"] == 3
    # Epochs 2 to 4: 1, 3, 8 and -2, 0, 5; the second weight is twice the first.
    np.testing.assert_allclose(moments.mean["w"], [[4, 8], [1, 2]], rtol=1e-6)
    variance = (1 + 9 + 64) / 3 - 16  # of both, as they differ by 3
    expected = [[variance, 4 * variance]] * 2
    np.testing.assert_allclose(moments.variance["w"], expected, rtol=1e-6)
    # From the mean until then: 3 - 2 and 8 - 4; the column of epoch 2 was replaced.
    columns = np.array([[4, 8], [1, 2.0]])
    np.testing.assert_allclose(moments.deviations["w"], [columns] * 2, rtol=1e-6)
    assert moments.model_state["batch_stats"].tolist() == [[8], [8]]

    for num_steps in (3, 5, 7):
        asked = itertools.count()
        with pytest.raises(loop.Interrupted, match=f"at step {num_steps} of 8"):
            fit(tmp_path / f"{num_steps}", lambda: next(asked) >= num_steps)  # noqa: B023
        again = fit(tmp_path / f"{num_steps}")
        jax.tree.map(np.testing.assert_array_equal, again.variables, moments)
        assert again.record["collected_epochs"] == 3


def test_a_sample_by_hand():
    moments = swag.Moments(
        mean={"a": jnp.array([4.0, 8.0]), "b": jnp.array(1.0)},
        variance={"a": jnp.array([2.0, 8.0]), "b": jnp.array(0.5)},
        deviations={
            "a": jnp.array([[4.0, 8.0], [1.0, 2.0], [0.0, 6.0]]),
            "b": jnp.array([1.0, -1.0, 2.0]),
        },
        model_state={},
    )
    z1 = {"a": jnp.array([1.0, -1.0]), "b": jnp.array(2.0)}
    z2 = jnp.array([2.0, 4.0, -2.0])
    # Deviations D z2 / (2 sqrt(K - 1) / sqrt(2)) = D z2 / 2, of K = 3.
    found = swag.sample(moments, z1, z2, 1.0)
    np.testing.assert_allclose(found["a"], [4 + 1 + 6, 8 - 2 + 6], rtol=1e-6)
    np.testing.assert_allclose(found["b"], 1 + 1 - 3, atol=1e-6)
    half = swag.sample(moments, z1, z2, 0.5)
    np.testing.assert_allclose(half["a"], [4 + 3.5, 8 + 2], rtol=1e-6)
    mean = swag.sample(moments, z1, z2, 0.0)
    jax.tree.map(np.testing.assert_array_equal, mean, moments.mean)


def test_samples_are_of_the_networks_in_turn_and_have_the_covariance():
    mean, variance = jnp.array([[0.0, 10.0], [100, 110]]), jnp.array([[2.0, 0], [0, 0]])
    columns = jnp.array([[[1.0, 1], [0, 2]], [[0, 0], [3, 0]]])
    moments = swag.Moments({"w": mean}, {"w": variance}, {"w": columns}, {"s": mean})
    drawn = swag.draw(moments, jax.random.key(0), 4, 1.0)
    assert drawn["s"].tolist() == mean.tolist() * 2
    assert (np.abs(drawn["params"]["w"] - jnp.concatenate([mean, mean])) < 20).all()
    assert (drawn["params"]["w"][1::2, 1] == 110).all()  # has no variance

    def one(key):
        z1, z2 = jax.random.split(key)
        own = jax.tree.map(lambda leaf: leaf[0], moments)
        noise = {"w": jax.random.normal(z1, (2,))}
        return swag.sample(own, noise, jax.random.normal(z2, (2,)), 1.0)["w"]

    many = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 20_000))
    np.testing.assert_allclose(many.mean(0), [0, 10], atol=0.05)
    # Half of the diagonal and half of D D^T / (K - 1).
    expected = [[2 / 2 + 1 / 2, 1 / 2], [1 / 2, (1 + 4) / 2]]
    np.testing.assert_allclose(np.cov(many.T), expected, atol=0.1)
