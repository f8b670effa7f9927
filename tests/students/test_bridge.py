"""Bridge students against hand-computed values and identities."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from edp import distill, ensemble, models, students
from edp.errors import InputError
from edp.models.from_nnx import NNXModel
from edp.students.bridge import (
    MEAN_TEMPERATURE,
    between,
    draw_temperature,
    mean_logits,
    sample_bridge,
    variance,
)
from edp.students.score_network import ScoreNetwork
from edp.students.student import DistillBatch

M, B, K = 3, 5, 4
BETAS = (0.1, 0.3)
X = jax.random.uniform(jax.random.key(0), (B, 6, 6, 1))
LABEL = jnp.arange(B) % K


class Net(models.Classifier):
    """One convolution with batch normalisation."""

    def feature_maps(self, x, conv, norm, drop):
        return jax.nn.relu(norm(name="norm")(conv(3, name="conv")(x)))


build_model = functools.partial(Net, num_classes=K, mean=(0.5,), std=(0.25,))


def create(build=build_model, seed=0, **settings):
    defaults = {"bridge_steps": 4, "bridge_one_step_share": 0.0}
    defaults |= {"bridge_betas": BETAS, "bridge_width": 8}
    return students.create_student(
        {"student": "bridge", **defaults, **settings},
        build,
        num_members=M,
        training_steps=10,
        seed=seed,
    )


@functools.cache
def teacher_variables():
    keys = jax.random.split(jax.random.key(4), M)
    variables = ensemble.init(build_model(), keys, X[:1])
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.random(x.shape, np.float32), variables)


def create_state(student, tx=None):
    return distill.create_state(
        student, tx or optax.sgd(0.1), jax.random.key(1), X[:1], teacher_variables()
    )


def teacher_logits():
    return ensemble.logits(build_model(), teacher_variables(), X)


def batch(step=0):
    return DistillBatch(X, LABEL, None, teacher_logits(), jnp.int32(step))


def test_the_variance_by_hand():
    times = np.array([0, 0.5, 1])
    # ½ (0.1 − 0.3) τ² + 0.3 τ
    np.testing.assert_allclose(variance(times, BETAS), [0, 0.125, 0.2])
    np.testing.assert_allclose(variance(times, (1e-4, 1e-4)), 1e-4 * times)


def test_between_the_ends_by_hand():
    end, start = jnp.array([1.0, -1.0]), jnp.array([3.0, 0.0])
    found = [between(end, start, v, 0.2) for v in (0.0, 0.125, 0.2)]
    # w = 1, 0.375 and 0.
    np.testing.assert_allclose(found[0][0], end)
    np.testing.assert_allclose(found[1][0], [0.375 + 0.625 * 3, -0.375], rtol=1e-6)
    np.testing.assert_allclose(found[2][0], start)
    np.testing.assert_allclose([v for _, v in found], [0, 0.375 * 0.125, 0], rtol=1e-6)


def test_steps_of_the_sampler_by_hand():
    variances, x = np.array([0, 0.125, 0.2]), jnp.full((1, 2), 2.0)
    noise = jnp.array([[[1.0, -2.0]]])
    seen = []

    def eps(x, n):
        seen.append((n, np.asarray(x)))
        return jnp.ones_like(x)

    found = sample_bridge(eps, x, variances, noise)
    # n = 2: x̂₀ = 2 − √0.2, a = 0.075/0.2 = 0.375, the variance 0.125 · 0.375.
    second = 2 - 0.375 * np.sqrt(0.2) + np.sqrt(0.046875) * np.array([[1.0, -2.0]])
    assert [n for n, _ in seen] == [2, 1]
    np.testing.assert_allclose(seen[1][1], second, rtol=1e-6)
    # n = 1: a = 1, without noise.
    np.testing.assert_allclose(found, second - np.sqrt(0.125), rtol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_the_sampler_finds_the_end_with_the_true_score(num_steps):
    variances = variance(np.arange(num_steps + 1) / num_steps, BETAS)
    end, start, noise = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(B, K), (B, K), (num_steps - 1, 1, K)])
    )

    def eps(x, n):
        return (x - end) / np.sqrt(variances[n])

    found = sample_bridge(eps, start, variances, noise)
    np.testing.assert_allclose(found, end, atol=1e-5)


def test_the_target_is_the_mean_by_hand():
    p = np.array([[[0.2, 0.8]], [[0.6, 0.4]]])  # the mean is 0.4, 0.6
    found = mean_logits(jnp.log(p) + np.array([[[3.0]], [[-1.0]]]))
    half = 0.5 * np.log(0.4 / 0.6)
    np.testing.assert_allclose(found, [[half, -half]], rtol=1e-5)


def test_the_temperature_has_its_mean_and_range():
    drawn = jax.vmap(draw_temperature)(jax.random.split(jax.random.key(0), 9999))
    assert drawn.min() >= 2 and drawn.max() <= 2.4
    # 2 + 0.4 Beta(1, 5): mean 2 + 0.4/6, variance 0.16 · 5 / (36 · 7).
    np.testing.assert_allclose(MEAN_TEMPERATURE, 2 + 0.4 / 6)
    np.testing.assert_allclose(drawn.mean(), 2 + 0.4 / 6, atol=0.002)
    np.testing.assert_allclose(drawn.var(), 0.16 * 5 / 252, rtol=0.05)


class Score:
    """A known function as the score network; records the points and times."""

    def __init__(self, fn):
        self.fn, self.seen = fn, []

    def init(self, key, *args):
        return {"params": {}}

    def apply(self, variables, x, features, time):
        jax.debug.callback(lambda *args: self.seen.append(args), x[0], time)
        return self.fn(x[0], time)[None]


def test_the_loss_is_zero_for_the_true_score_at_every_step(monkeypatch):
    target = mean_logits(teacher_logits())
    deviations = np.sqrt(variance(np.arange(5) / 4, BETAS))
    scale = deviations[4]

    def fn(x, time):
        sigma = jnp.asarray(deviations)[jnp.round(4 * time).astype(int)]
        return scale * (x - target) / sigma[:, None]

    score = Score(fn)
    module = importlib.import_module("edp.students.bridge")
    monkeypatch.setattr(module, "ScoreNetwork", lambda width: score)
    student = create()
    variables = create_state(student).variables
    loss = jax.jit(student.loss)
    losses = [loss(variables, batch(), jax.random.key(i))[0] for i in range(12)]
    np.testing.assert_allclose(losses, np.zeros((12, B)), atol=1e-8)
    jax.effects_barrier()
    times = np.concatenate([time for _, time in score.seen])
    np.testing.assert_allclose(np.unique(times), [0.25, 0.5, 0.75, 1])
    # At τ = 1 without noise: member 0 at one temperature of the batch.
    for x, time in score.seen:
        ratio = teacher_logits()[0][time == 1] / x[time == 1]
        assert ratio.size == 0 or (ratio.max() < 2.4 and np.ptp(ratio) < 1e-4)


def test_one_step_is_a_regression():
    student = create(bridge_steps=1)
    variables = create_state(student).variables
    total, _ = jax.jit(student.loss)(variables, batch(), jax.random.key(3))
    temperature = draw_temperature(jax.random.split(jax.random.key(3))[0])
    source = students.create_source(build_model())
    features, logits = source.features(variables["source"], X)
    start = logits / temperature
    network = ScoreNetwork(8)
    residual = network.apply(
        {"params": variables["params"]}, start[None], features, jnp.ones(1)
    )[0]
    expected = start - residual - mean_logits(teacher_logits())
    np.testing.assert_allclose(total, (expected**2).sum(-1), rtol=1e-4)
    # Predictions and costs are those of a bridge distilled to one step.
    other = create(bridge_one_step_share=0.5)
    np.testing.assert_allclose(
        student.predict(variables, X), other.predict(variables, X), rtol=1e-6
    )


def test_the_parameters_at_the_switch_are_distilled_into_one_step():
    student = create(bridge_one_step_share=0.4)  # the last four of ten steps
    variables = create_state(student).variables
    other = jax.tree.map(lambda x: x + 0.1, variables["params"])
    loss = jax.jit(student.loss)
    for step, kept in ((0, other), (6, other), (7, variables["sampler"])):
        moved = {**variables, "params": other}
        total, (state, _) = loss(moved, batch(step), jax.random.key(3))
        jax.tree.map(np.testing.assert_array_equal, state["sampler"], kept)
        if step < 6:
            continue
        # The end of one step against that of four, with the parameters kept.
        _, key = jax.random.split(jax.random.key(3))
        noise = jax.random.normal(key, (3, B, K))
        ends = [
            predict_end(variables, kept, noise, jax.random.key(3), 4),
            predict_end(variables, other, None, jax.random.key(3), 1),
        ]
        expected = ((ends[0] - ends[1]) ** 2).sum(-1)
        assert expected.min() > 1e-6
        np.testing.assert_allclose(total, expected, rtol=1e-3)
    assert "sampler" not in student.finalise(variables)
    # Without the distillation no copy is kept.
    assert "sampler" not in create_state(create()).variables


def predict_end(variables, params, noise, key, num_steps):
    source = students.create_source(build_model())
    features, logits = source.features(variables["source"], X)
    start = logits / draw_temperature(jax.random.split(key)[0])
    variances = variance(np.arange(5) / 4, BETAS)
    network = ScoreNetwork(8)

    def eps(x, n):
        time = jnp.full(1, n / 4)
        outputs = network.apply({"params": params}, x[None], features, time)
        return outputs[0] / np.sqrt(variances[4])

    if num_steps == 1:
        return start - np.sqrt(variances[4]) * eps(start, 4)
    return sample_bridge(eps, start, variances, noise)


def test_the_score_depends_on_all_it_reads():
    student = create()
    variables = create_state(student).variables
    network, params = ScoreNetwork(8), {"params": variables["params"]}
    x, h = jnp.ones((1, B, K)), jnp.ones((B, 3)) * jnp.arange(3.0)
    base = network.apply(params, x, h, jnp.full(1, 0.2))
    for other in (
        network.apply(params, x * jnp.arange(K) / K, h, jnp.full(1, 0.2)),
        network.apply(params, x, h[:, ::-1], jnp.full(1, 0.2)),
        network.apply(params, x, h, jnp.full(1, 0.4)),
    ):
        assert np.abs(base - other).max() > 1e-4


# --- The frozen member --------------------------------------------------------


def test_features_are_those_before_the_head():
    member = ensemble.select(teacher_variables(), 0)
    source = students.create_source(build_model())
    features, logits = source.features(member, X)
    assert features.shape == (B, 3)
    head = member["params"]["head"]
    by_hand = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5)
    np.testing.assert_allclose(logits, teacher_logits()[0], rtol=1e-5)


def test_predictions_are_fixed_by_the_seed():
    """And independent of the rest of the batch."""
    students = [create(seed=seed, bridge_steps=2) for seed in (0, 1)]
    variables = create_state(students[0]).variables
    one, other = (jax.jit(student.predict) for student in students)
    probs = one(variables, X)
    assert probs.shape == (1, B, K)
    np.testing.assert_allclose(one(variables, X[::-1]), probs[:, ::-1], rtol=1e-5)
    assert np.abs(other(variables, X) - probs).max() > 1e-3


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (lambda: None, "teacher_variables=None.*functions, PyTorch or a loader"),
        (lambda: ensemble.select(teacher_variables(), 0), "differ .*accepted: stacked"),
        (lambda: {"params": teacher_variables()["params"]}, "differ .* structure"),
    ],
)
def test_other_teachers_are_refused(variables, message):
    with pytest.raises(InputError, match=message):
        distill.create_state(
            create(), optax.sgd(0.1), jax.random.key(0), X[:1], variables()
        )


def test_a_network_without_features_is_refused():
    with pytest.raises(InputError, match="a NNXModel, whose features cannot be read"):
        create(lambda: NNXModel(lambda rngs: None))

    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(K)(x.reshape(len(x), -1))

    with pytest.raises(InputError, match="a Flat with 0 layers named 'head_dropout'"):
        create(Flat).init(jax.random.key(0), X[:1])
