"""Tests of students with a random input, and of their discrepancy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_students import (
    B,
    K,
    M,
    X,
    assert_close,
    build_model,
    create,
    initial,
    make_batch,
    teachers,
)

from edp import losses
from edp.errors import InputError


def test_the_discrepancy_is_the_double_loop():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(3, 8)), rng.uniform(size=(4, 8))

    def mean_kernel(a, b):
        total = 0
        for x in a:
            for y in b:
                distance = sum((x[i] - y[i]) ** 2 for i in range(8))
                total += sum(np.exp(-distance / (2 * s)) for s in (2, 10, 20, 50))
        return total / (len(a) * len(b))

    expected = mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
    assert expected > 0.01
    mmd = jax.jit(losses.maximum_mean_discrepancy)
    np.testing.assert_allclose(mmd(a, b), expected, rtol=1e-4)
    assert abs(mmd(a, a[::-1])) < 1e-6
    assert abs(mmd(a[:1], np.repeat(a[:1], 4, axis=0))) < 1e-6


def test_functional_matches_its_samples_to_the_members_over_the_batch():
    student = create("functional")
    variables = initial(student)
    key = jax.random.key(2)
    loss, (state, metrics) = jax.jit(student.loss)(
        variables, make_batch(teachers()), key
    )
    assert loss.shape == metrics["accuracy"].shape == (B,)
    # Each sample is one image for the batch, an extra channel of the input.
    z = 0.5 * jax.random.normal(jax.random.split(key, 3)[0], (2, 6, 6, 1))
    rows = jnp.stack([jnp.concatenate([x, z_s], -1) for x in X for z_s in z])
    inner = {name: tree["network"] for name, tree in variables.items()}
    assert inner["params"]["conv"]["kernel"].shape[2] == 2
    assert variables["params"]["noise_scale"] == 1
    model = build_model(extra_channels=1)
    logits, after = model.apply(inner, rows, train=True, mutable=["batch_stats"])
    assert_close(state["batch_stats"]["network"], after["batch_stats"])
    p = np.exp(jax.nn.log_softmax(teachers())).reshape(M, B * K)
    q = np.exp(jax.nn.log_softmax(logits)).reshape(B, 2, K)
    q = np.stack([q[:, s].reshape(B * K) for s in range(2)])
    np.testing.assert_allclose(loss, losses.maximum_mean_discrepancy(p, q), rtol=1e-4)


def test_functional_samples_the_requested_number_of_teachers():
    student = create("functional", functional_teachers=1)
    variables, loss = initial(student), jax.jit(student.loss)
    keys = jax.random.split(jax.random.key(0), 12)
    values = {float(loss(variables, make_batch(teachers()), k)[0][0]) for k in keys}
    same = jnp.broadcast_to(teachers()[:1], (M, B, K))
    alone = [float(loss(variables, make_batch(same), k)[0][0]) for k in keys]
    # With the same z, a step equals that with the first member alone if it sampled it.
    shared = sum(any(np.isclose(v, a, rtol=1e-6) for v in values) for a in alone)
    assert 0 < shared < len(keys)
    for wrong in (0, M + 1):
        with pytest.raises(InputError, match=f"functional_teachers={wrong} is out of"):
            create("functional", functional_teachers=wrong)


def test_functional_predicts_from_fixed_samples():
    student = create("functional")
    variables = initial(student)
    predict = jax.jit(student.predict)
    probs = predict(variables, X)
    assert probs.shape == (student.num_members, B, K) == (4, B, K)
    assert student.inference_cost == 4
    # Independent of the batch, and different for each sample.
    np.testing.assert_allclose(predict(variables, X[1:2])[:, 0], probs[:, 1], rtol=1e-4)
    assert np.abs(np.diff(probs, axis=0)).max(axis=(1, 2)).min() > 1e-4


@pytest.mark.parametrize("kind", ["functional", "flow"])
def test_logits_of_another_number_of_teachers_are_refused(kind):
    """Members would be left out, or the last sampled in place of missing ones."""
    student = create(kind)
    variables = jax.eval_shape(student.init, jax.random.key(1), X[:1])
    for number in (M - 1, M + 1):
        logits = jnp.zeros((number, B, K))
        with pytest.raises(AssertionError, match="dimension equal to '3'"):
            jax.eval_shape(
                student.loss, variables, make_batch(logits), jax.random.key(2)
            )
