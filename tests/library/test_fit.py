"""Tests of `edp.fit`: the training loop without a configuration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edp.data import EpochOrder
from edp.errors import InputError
from edp.fit import fit
from edp.runtime import loop, rng, xla
from edp.runtime.state import TrainState

N, B, EPOCHS = 20, 6, 4  # three steps an epoch, two examples left out
KEY = jax.random.key(7)
TX = optax.adam(0.1)


def make_data():
    x = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1)}


def make_state():
    params = {"w": jnp.zeros(5), "b": jnp.zeros(())}
    return TrainState(jnp.int32(0), params, {}, TX.init(params))


def step(state, batch, key, scale=1.0):
    noise = 0.1 * jax.random.normal(key, batch["x"].shape)

    def loss_fn(params):
        found = (batch["x"] + noise) @ params["w"] + params["b"]
        return jnp.square(found - scale * batch["y"]).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = TX.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, {}, opt_state), {"loss": loss}


def by_hand(data, key=KEY):
    """Returns the state after each epoch of a hand-written loop, and the losses."""
    order_key = np.asarray(jax.random.key_data(rng.stream(key, "order")))
    order = EpochOrder(order_key, N, B)
    jitted = jax.jit(step, compiler_options=xla.compiler_options())
    state, states, losses = make_state(), [], []
    for epoch in range(EPOCHS):
        for indices in np.asarray(order(epoch)):
            batch = {name: values[indices] for name, values in data.items()}
            step_key = jax.random.fold_in(rng.stream(key, "step"), state.step)
            state, metrics = jitted(state, batch, step_key)
            losses.append(float(metrics["loss"]))
        states.append(state)
    return states, losses


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def in_parts(run, *stops):
    """Runs `run(should_stop)`, stopped after so many steps, then to the end."""
    for stop in stops:
        asked = itertools.count()
        with pytest.raises(loop.Interrupted, match=r"step \d+ of 12"):
            run(lambda asked=asked, stop=stop: next(asked) >= stop)
    return run(lambda: False)


def test_arrays_train_as_in_a_hand_written_loop(tmp_path):
    data, state = make_data(), make_state()
    states, losses = by_hand(data)

    def run(should_stop, workdir=tmp_path / "parts"):
        return fit(
            step,
            state,
            data,
            KEY,
            num_epochs=EPOCHS,
            batch_size=B,
            workdir=workdir,
            should_stop=should_stop,
        )

    found = run(lambda: False, None)
    assert_equal(found.state, states[-1])
    assert found.variables is found.state.variables or found.variables["params"]
    means = np.float64(losses).reshape(EPOCHS, 3).mean(axis=1)
    assert [row["loss"] for row in found.history] == means.tolist()
    assert [row["step"] for row in found.history] == [3, 6, 9, 12]
    assert not state.params["w"].is_deleted() and not np.any(state.params["w"])
    resumed = in_parts(run, 2, 1, 5)
    assert_equal(resumed.state, found.state)
    assert resumed.history == found.history
    # Called once more, it trains no further.
    again = in_parts(run)
    assert_equal(again.state, found.state)
    assert again.history == found.history


def test_batches_of_a_function_train_as_in_a_hand_written_loop(tmp_path):
    data = make_data()
    order = EpochOrder(np.asarray(jax.random.key_data(rng.stream(KEY, "order"))), N, B)
    states, _ = by_hand(data)
    read = []

    def batches(epoch):
        for indices in np.asarray(order(epoch)):
            read.append(epoch)
            yield {name: values[indices] for name, values in data.items()}

    def run(should_stop):
        return fit(
            step,
            make_state(),
            batches,
            KEY,
            num_epochs=EPOCHS,
            batch_size=B,
            steps_per_epoch=3,
            workdir=tmp_path,
            should_stop=should_stop,
        )

    found = in_parts(run, 4)
    assert_equal(found.state, states[-1])
    # The first two epochs, then from the second on again.
    assert read == [0, 0, 0, 1, 1, *[1] * 3, *[2] * 3, *[3] * 3]
    with pytest.raises(InputError, match=r"data\(0\) gives 3 batches; .* at least"):
        options = {"num_epochs": 1, "batch_size": B, "steps_per_epoch": 4}
        fit(step, make_state(), batches, KEY, **options)


def test_the_best_epoch_on_validation_is_kept(tmp_path):
    data = make_data()
    states, _ = by_hand(data)
    biases = [float(state.params["b"]) for state in states]
    target = biases[1]  # that of the second epoch

    def validate(variables):
        return -jnp.abs(variables["params"]["b"] - target)

    def run(should_stop):
        return fit(
            step,
            make_state(),
            data,
            KEY,
            num_epochs=EPOCHS,
            batch_size=B,
            validate=validate,
            workdir=tmp_path,
            checkpoint_minutes=0,
            should_stop=should_stop,
        )

    found = in_parts(run, 8)
    assert found.record["selected_epoch"] == 2
    assert_equal(found.variables["params"], states[1].params)
    assert_equal(found.state, states[-1])
    scores = [row["validation_score"] for row in found.history]
    assert scores == [-abs(np.float32(b - target)) for b in np.float32(biases)]


def test_arguments_are_inputs_of_the_step():
    data, found = make_data(), {}
    for scale in (1.0, 2.0):
        result = fit(
            step, make_state(), data, KEY, num_epochs=1, batch_size=B, args=(scale,)
        )
        found[scale] = result.history[0]["loss"]
    assert found[2.0] > 2 * found[1.0]


def test_a_workdir_of_other_arguments_is_refused(tmp_path):
    data = make_data()
    same = {"num_epochs": 1, "batch_size": B, "settings": {"rate": 0.1}}

    def run(key=KEY, data=data, state=None, **changes):
        options = {**same, "workdir": tmp_path, **changes}
        return fit(step, state or make_state(), data, key, **options)

    first = run()
    assert_equal(run().state, first.state)
    for changes, words in (
        ({"num_epochs": 2}, "num_epochs was 1 and is now 2"),
        ({"settings": {"rate": 0.2}}, r"settings\.rate was 0\.1 and is now 0\.2"),
        ({"key": jax.random.key(8)}, r"key was \[0, 7\] and is now \[0, 8\]"),
        ({"data": {**data, "y": -data["y"]}}, "data sha256 was"),
        ({"args": (2.0,)}, "args sha256 was"),
    ):
        with pytest.raises(InputError, match=words):
            run(**changes)


def test_a_workdir_of_another_initial_state_is_refused(tmp_path):
    options = {"num_epochs": 1, "batch_size": B, "workdir": tmp_path}

    def run(w):
        state = make_state()
        state.params["w"] = jnp.asarray(w)
        return fit(step, state, make_data(), KEY, **options)

    drawn = jax.random.normal(jax.random.key(0), (5,))
    first = run(drawn)
    with pytest.raises(InputError, match=r"state differs in params\.w from .*begun"):
        run(jax.random.normal(jax.random.key(1), (5,)))
    # Initialised elsewhere, with other last digits.
    assert_equal(run(drawn * (1 + 1e-6)).state, first.state)


@pytest.mark.parametrize("name", ["checkpoints/3/w", "metrics.jsonl", "start.json"])
def test_a_workdir_of_another_training_is_left_as_it_is(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    options = {"num_epochs": 1, "batch_size": B, "workdir": tmp_path}
    with pytest.raises(InputError, match=r"has no settings.json, but .*accepted: "):
        fit(step, make_state(), make_data(), KEY, **options)
    assert path.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_another_implementation_than_the_default_are_accepted(impl):
    options = {"num_epochs": 1, "batch_size": B}
    key = jax.random.key(7, impl=impl)
    with jax.default_prng_impl(impl):  # where it is the default, the same epoch
        expected = fit(step, make_state(), make_data(), key, **options)
    found = fit(step, make_state(), make_data(), key, **options)
    assert found.history == expected.history


def test_a_workdir_of_another_implementation_of_keys_is_refused(tmp_path):
    keys = [jax.random.key(7, impl=impl) for impl in ("rbg", "unsafe_rbg")]
    np.testing.assert_array_equal(*map(jax.random.key_data, keys))
    options = {"num_epochs": 1, "batch_size": B, "workdir": tmp_path}
    fit(step, make_state(), make_data(), keys[0], **options)
    with pytest.raises(InputError, match="key implementation"):
        fit(step, make_state(), make_data(), keys[1], **options)


def test_arguments_that_do_not_fit_are_named():
    data = make_data()

    def refused(words, step=step, state=None, data=data, **changes):
        options = {"num_epochs": 1, "batch_size": B, **changes}
        with pytest.raises(InputError, match=words):
            fit(step, state or make_state(), data, KEY, **options)

    refused(r"state is a dict; accepted: .*TrainState", state={"params": 1})
    trained = make_state()._replace(step=jnp.int32(3))
    refused(r"state\.step=3 .* num_epochs=1 of 3 steps; accepted: more", state=trained)
    refused(r"num_epochs=0; accepted: at least 1", num_epochs=0)
    refused(r"batch_size=21, .* from 1 to 20", batch_size=21)
    refused(r"batch_size=0; accepted: at least 1", batch_size=0)
    refused(r"steps_per_epoch=3 for arrays", steps_per_epoch=3)
    refused(r"arrays of \[\(3,\), \(20,\)\] examples", data={**data, "y": np.ones(3)})
    refused(r"steps_per_epoch=None for a function", data=lambda epoch: [])
    refused(r"metrics \['nll'\]; accepted: .*'loss'", lambda s, b, k: (s, {"nll": 1.0}))
    refused(
        r"returns a state of .*accepted: ",
        lambda s, b, k: (s._replace(params={}), {"loss": 1.0}),
    )
    refused(r"validate returns nan; accepted", validate=lambda variables: jnp.nan)
    # Of "w" [5] and "b" [], which would be mixed from several epochs.
    of_each = {"validate": lambda variables: jnp.arange(5.0)}
    refused(r"validate returns 5 numbers .*; accepted: a number", **of_each)
    with pytest.raises(loop.NonFinite, match=r"fit: the loss is nan .* step 1 of 3$"):
        fit(
            lambda s, b, k: (s, {"loss": jnp.nan * b["x"].sum()}),
            make_state(),
            data,
            KEY,
            num_epochs=1,
            batch_size=B,
        )
