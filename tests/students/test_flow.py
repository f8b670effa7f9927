"""Flow students against hand-computed values and known distributions."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from edp import distill, ensemble, models, students
from edp.students.flow import draw_times, integrate, precondition
from edp.students.student import DistillBatch

M, B, K = 3, 5, 4
X = jax.random.uniform(jax.random.key(0), (B, 6, 6, 1))
LABEL = jnp.arange(B) % K


class Net(models.Classifier):
    """One convolution with batch normalisation."""

    def feature_maps(self, x, conv, norm, drop):
        return jax.nn.relu(norm(name="norm")(conv(3, name="conv")(x)))


build_model = functools.partial(Net, num_classes=K, mean=(0.5,), std=(0.25,))


def create(seed=0, samples=None):
    return students.create_student(
        {"student": "flow", "flow_width": 8, "flow_samples": samples},
        build_model,
        num_members=M,
        training_steps=10,
        seed=seed,
    )


def initial(student):
    keys = jax.random.split(jax.random.key(4), M)
    teachers = ensemble.init(build_model(), keys, X[:1])
    state = distill.create_state(
        student, optax.sgd(0.1), jax.random.key(1), X[:1], teachers
    )
    return state.variables


def test_the_density_of_times():
    times = np.asarray(draw_times(jax.random.key(0), 20_000), np.float64)
    assert times.min() >= 0 and times.max() <= 1
    # The distribution function is (3^t − 1) / 2.
    for t in (0.25, 0.5, 0.75):
        np.testing.assert_allclose((times < t).mean(), (3**t - 1) / 2, atol=0.01)
    # E[3^t] = ∫ 9^t ln 3 / 2 dt = (9 − 1) / 4.
    np.testing.assert_allclose((3**times).mean(), 2, rtol=0.01)


def test_preconditioning_by_hand():
    c_in, c_skip, c_out = precondition(jnp.array([0.0, 0.5, 1.0]))
    # Variances 16, 1/4 + 16/4 = 4.25 and 1 of the points.
    np.testing.assert_allclose(c_in, [1 / 4, 1 / np.sqrt(4.25), 1], rtol=1e-6)
    np.testing.assert_allclose(c_skip, [-1, (0.5 - 8) / 4.25, 1], rtol=1e-6)
    np.testing.assert_allclose(c_out, [1, 4 / np.sqrt(4.25), 4], rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
def test_preconditioning_leaves_a_remainder_of_variance_1(t):
    logits, z = np.random.default_rng(0).normal(size=(2, 200_000))
    x, velocity = t * logits + (1 - t) * 4 * z, logits - 4 * z
    c_in, c_skip, c_out = precondition(jnp.float32(t))
    remainder = (velocity - c_skip * x) / c_out
    np.testing.assert_allclose(np.var(c_in * x), 1, rtol=0.02)
    np.testing.assert_allclose(np.var(remainder), 1, rtol=0.02)
    np.testing.assert_allclose(np.mean(remainder * x), 0, atol=0.05)


def test_steps_on_a_linear_field_by_hand():
    times = []

    def velocity(x, t):
        times.append(t)
        return 1.27 * x

    found = integrate(velocity, jnp.array([2.0]))
    # Steps h of 64/127, 32/127, ..., 1/127 and v = 1.27 x: with g = 1.27 h, a step of
    # Heun multiplies by 1 + g + g² / 2, the last one, of Euler, by 1 + g.
    expected = 2 * 1.01
    for g in (0.64, 0.32, 0.16, 0.08, 0.04, 0.02):
        expected *= 1 + g + g**2 / 2
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    grid = np.array([0, 64, 96, 112, 120, 124, 126]) / 127
    # Each step of Heun evaluates both of its ends.
    np.testing.assert_allclose(times, np.repeat(grid, 2)[1:])


@pytest.mark.parametrize(("deviation", "sampled"), [(4.0, 4.163), (1.0, 1.0954)])
def test_samples_of_a_known_gaussian(deviation, sampled):
    mean = 3.0
    z = np.random.default_rng(0).normal(size=2000)

    def velocity(x, t):
        variance = (t * deviation) ** 2 + 16 * (1 - t) ** 2
        gain = (t * deviation**2 - 16 * (1 - t)) / variance
        return mean + gain * (x - t * mean)

    found = integrate(velocity, jnp.asarray(4 * z))
    # The exact flow takes 4 z to 3 + σ z; 13 evaluations miss σ by up to 10 %.
    np.testing.assert_allclose(found, mean + sampled * z, rtol=1e-3, atol=1e-3)


def replace_network(monkeypatch):
    """Replaces the network by zeros; returns the points and times that it reads."""
    seen = []

    class Zeros:
        def init(self, key, *args):
            return {"params": {}}

        def apply(self, variables, x, features, time):
            jax.debug.callback(lambda *args: seen.append(args), x[0], time)
            return jnp.zeros_like(x)

    module = importlib.import_module("edp.students.flow")
    monkeypatch.setattr(module, "ScoreNetwork", lambda width: Zeros())
    return seen


def test_without_outputs_the_samples_are_the_noise(monkeypatch):
    """The skip connection alone samples standard normal logits, but for its steps."""

    replace_network(monkeypatch)
    student = create(seed=3, samples=500)
    probs = student.predict(initial(student), X)
    noise = np.random.default_rng(3).standard_normal((500, 1, K), np.float32)
    expected = jax.nn.softmax(jnp.broadcast_to(1.0954 * noise, (500, B, K)))
    assert student.num_members == 500
    np.testing.assert_allclose(probs, expected, atol=1e-3)


def test_the_loss_by_hand(monkeypatch):
    seen = replace_network(monkeypatch)
    logits = 2 * jax.random.normal(jax.random.key(3), (M, B, K)) + 1
    batch = DistillBatch(X, LABEL, None, logits, jnp.int32(0))
    student = create()
    variables = initial(student)
    loss = jax.jit(student.loss)
    centred = np.asarray(logits - logits.mean(-1, keepdims=True))
    members = []
    for seed in range(4):
        seen.clear()
        total, _ = loss(variables, batch, jax.random.key(seed))
        jax.effects_barrier()
        ((scaled, time),) = seen
        t = time[:, None]
        c_in, c_skip, _ = (np.asarray(c)[:, None] for c in precondition(time))
        x = scaled / c_in
        # x gives the noise of each member's logits, hence its velocity.
        velocity = centred - (x - t * centred) / (1 - t)
        errors = ((c_skip * x - velocity) ** 2).sum(-1)  # [M, B]
        chosen = np.abs(errors / total - 1).argmin(axis=0)
        np.testing.assert_allclose(errors[chosen, np.arange(B)], total, rtol=1e-3)
        members.extend(chosen)
    assert set(members) == set(range(M))


def test_predictions_are_independent_of_the_batch():
    student = create()
    variables, predict = initial(student), jax.jit(student.predict)
    probs = predict(variables, X)
    assert probs.shape == (M, B, K)
    np.testing.assert_allclose(predict(variables, X[::-1]), probs[:, ::-1], rtol=1e-4)
    assert np.abs(np.diff(probs, axis=0)).max(axis=(1, 2)).min() > 1e-3
