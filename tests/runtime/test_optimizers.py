"""Tests schedules at every epoch, and optimizers by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edp.errors import InputError
from edp.runtime import optimizers

BASE = {
    "schedule": "constant",
    "learning_rate": 0.1,
    "num_epochs": 10,
    "warmup_epochs": 2.0,
    "milestones": (100, 180),
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.01,
    "rank_one_lr_factor": 0.5,
}


@pytest.mark.parametrize(
    ("epochs", "peak", "milestones"),
    [(200, 0.4, (100, 180)), (300, 0.2, (150, 270)), (250, 0.1, (125, 225))],
)
def test_step_linear_at_every_epoch(epochs, peak, milestones):
    first, second = milestones
    config = {
        **BASE,
        "schedule": "step_linear",
        "learning_rate": peak,
        "num_epochs": epochs,
        "milestones": milestones,
    }
    schedule = optimizers.create_schedule(config, steps_per_epoch=7)
    for e in range(1, epochs + 1):
        if e < 5:
            factor = 0.01 + 0.99 * (e - 1) / 4
        elif e < first:
            factor = 1.0
        elif e < second:
            factor = 1 - 0.99 * (e - first) / (second - first)
        else:
            factor = 0.01
        for step in ((e - 1) * 7, (e - 1) * 7 + 6):
            assert float(schedule(step)) == pytest.approx(peak * factor, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "cosine", "warmup_epochs": 9.5}, None),
        ({"schedule": "cosine", "warmup_epochs": 10.0}, "warmup_epochs=10.0 .* of 10"),
        ({"schedule": "cosine", "num_epochs": 1}, None),  # a trial
        ({"schedule": "constant", "warmup_epochs": 20.0}, None),  # does not warm up
        ({"schedule": "step_linear", "num_epochs": 180}, None),
        ({"schedule": "step_linear", "num_epochs": 179}, r"\(100, 180\) .*_epochs=179"),
        ({"schedule": "cosine_then_constant", "swag_start": 4}, None),
        ({"schedule": "cosine_then_constant", "swag_start": 3}, "epochs=2.0 .* of 2"),
    ],
)
def test_training_that_ends_before_its_schedule(changes, words):
    found = optimizers.cut_off({**BASE, **changes})
    assert found is words or re.search(words, found)


def test_cosine_warms_up_from_zero_and_ends_at_zero():
    schedule = optimizers.create_schedule({**BASE, "schedule": "cosine"}, 5)
    np.testing.assert_allclose(
        [schedule(0), schedule(5), schedule(10), schedule(30), schedule(50)],
        [0.0, 0.05, 0.1, 0.05, 0.0],
        atol=1e-7,
    )


def test_cosine_without_warmup_starts_at_the_peak():
    config = {**BASE, "schedule": "cosine", "warmup_epochs": 0.0}
    assert float(optimizers.create_schedule(config, 5)(0)) == pytest.approx(0.1)


def test_cosine_then_constant_by_hand():
    own = {"swag_start": 5, "swag_learning_rate": 0.02, "warmup_epochs": 0.0}
    config = {**BASE, "schedule": "cosine_then_constant", **own}
    schedule = optimizers.create_schedule(config, 2)  # epoch 5 begins with step 8
    found = [float(schedule(step)) for step in (0, 4, 8, 9, 19)]
    np.testing.assert_allclose(found, [0.1, 0.06, 0.02, 0.02, 0.02], rtol=1e-5)
    warm = optimizers.create_schedule({**config, "warmup_epochs": 1.0}, 2)
    found = [float(warm(step)) for step in (0, 1, 2, 5, 8)]
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.06, 0.02], atol=1e-7)


def test_cyclic_restarts_at_the_peak():
    config = {**BASE, "schedule": "cyclic", "cycles": 5}  # of 2 epochs of 2 steps
    schedule = optimizers.create_schedule(config, 2)
    r = np.sqrt(0.5)
    cycle = [0.1, 0.05 * (1 + r), 0.05, 0.05 * (1 - r)]
    found = [float(schedule(jnp.int32(step))) for step in range(20)]
    np.testing.assert_allclose(found, cycle * 5, rtol=1e-5)


def test_cyclic_has_the_bits_of_equation_2():
    config = {**BASE, "schedule": "cyclic", "cycles": 5}
    steps = 2 * 391
    schedule = jax.jit(optimizers.create_schedule(config, 391))
    expected = jax.jit(lambda n: 0.1 / 2 * (1 + jnp.cos(jnp.pi * (n % steps) / steps)))
    counts = jnp.arange(5 * steps)
    np.testing.assert_array_equal(schedule(counts), expected(counts))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_and_coupled_decay_by_hand(nesterov):
    tx = optimizers.create_optimizer({**BASE, "nesterov": nesterov}, 5)
    w, velocity = 2.0, 0.0
    params = {"w": jnp.array(w)}
    state = tx.init(params)
    for g in (1.0, -0.5, 0.25):
        updates, state = tx.update({"w": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
        decayed = g + 0.01 * w
        velocity = 0.9 * velocity + decayed
        w -= 0.1 * (decayed + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(params["w"], w, rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_adamw_by_hand(nesterov):
    config = {**BASE, "optimizer": "adamw", "nesterov": nesterov}
    tx = optimizers.create_optimizer(config, 5)
    w, m, v = 2.0, 0.0, 0.0
    params = {"w": jnp.array(w)}
    state = tx.init(params)
    for t, g in enumerate((1.0, -0.5, 0.25), 1):
        updates, state = tx.update({"w": jnp.array(g)}, state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        mean = m / (1 - 0.9**t)
        if nesterov:
            mean = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        # The decay is not divided by the root of the second moment.
        w -= 0.1 * (mean / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.01 * w)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_adamw_with_rank_one_factors():
    params = {"kernel": jnp.array(2.0), "r": jnp.array(3.0)}
    rank_one = lambda tree: {name: name == "r" for name in tree}  # noqa: E731
    config = {**BASE, "optimizer": "adamw"}
    tx = optimizers.create_optimizer(config, 5, optimizers.decay_all_but(rank_one))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.01 * 2.0), rtol=1e-5)
    np.testing.assert_allclose(updates["r"], -0.05, rtol=1e-5)


def test_unknown_optimizer():
    with pytest.raises(InputError, match=r"optimizer='adam'.*sgd, adamw"):
        optimizers.create_optimizer({**BASE, "optimizer": "adam"}, 5)


def test_rank_one_factors_take_half_steps_without_decay():
    params = {"kernel": jnp.array(2.0), "r": jnp.array(3.0)}
    rank_one = lambda tree: {name: name == "r" for name in tree}  # noqa: E731
    tx = optimizers.create_optimizer(BASE, 5, optimizers.decay_all_but(rank_one))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.01 * 2.0), rtol=1e-6)
    np.testing.assert_allclose(updates["r"], -0.05, rtol=1e-6)


def test_unknown_schedule():
    with pytest.raises(InputError, match=r"schedule='cosin'.*step_linear, cosine"):
        optimizers.create_schedule({**BASE, "schedule": "cosin"}, 5)
