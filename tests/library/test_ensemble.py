"""Ensembles: stacked = separate, vmap = unroll, sharded = unsharded."""

import functools

import compiled
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax import linen as nn

from edp import ensemble, losses, models, perturbations
from edp.errors import InputError
from edp.runtime.rng import stream

M, B, K = 3, 8, 4


@pytest.fixture(scope="module")
def model():
    config = ml_collections.ConfigDict({"name": "convnet", "width": 4})
    return models.create_model(config, num_classes=K, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def tx():
    return optax.sgd(0.1, momentum=0.9)


@pytest.fixture(scope="module")
def state(model, tx):
    keys = jax.random.split(jax.random.key(0), M)
    return ensemble.create_state(model, tx, keys, jnp.zeros((1, 8, 8, 1)))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(size=(M, B, 8, 8, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, K, size=(M, B))),
    }


def assert_trees_close(a, b, **tolerances):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), a, b)


def test_members_start_apart(state):
    kernel = state.params["conv1"]["kernel"]
    assert kernel.shape[0] == M
    assert not np.allclose(kernel[0], kernel[1])


def test_logits_are_those_of_each_member(model, state, batch):
    x = batch["image"][0]
    stacked = ensemble.logits(model, state.variables, x)
    assert stacked.shape == (M, B, K)
    for m, variables in enumerate(ensemble.unstack(state.variables)):
        alone = compiled.logits(model, variables, x)
        np.testing.assert_allclose(stacked[m], alone, atol=1e-5)


def test_teachers_from_groups_has_the_members_in_order(monkeypatch):
    def group(*scales):
        return ensemble.teachers_from_functions(
            [lambda x, s=s: s * x[:, :K] for s in scales]
        )

    x = jnp.arange(2.0 * K).reshape(2, K)
    teachers = ensemble.teachers_from_groups([group(1.0, 2.0), group(3.0), group(4.0)])
    expected = [s * x for s in (1, 2, 3, 4)]
    assert teachers.num_members == 4 and teachers.differentiable
    np.testing.assert_array_equal(teachers.all_logits(x), expected)
    np.testing.assert_array_equal(teachers.all_logits(x, members_at_once=1), expected)
    gradient = jax.jit(jax.grad(lambda x, m: teachers.member_logits(m, x).sum()))
    for m in range(4):
        np.testing.assert_array_equal(teachers.member_logits(m, x), expected[m])
        np.testing.assert_array_equal(gradient(x, m), jnp.full_like(x, m + 1))
    fixed = group(1.0)._replace(differentiable=False)
    assert not ensemble.teachers_from_groups([fixed, group(2.0)]).differentiable
    with pytest.raises(InputError, match="empty"):
        ensemble.teachers_from_groups([])
    other = ensemble.teachers_from_functions([lambda x: x[:, :2]])
    with pytest.raises(InputError, match=r"group 1 returns logits \[2, 2\]; accepted"):
        ensemble.teachers_from_groups([group(1.0), other]).all_logits(x)
    # As jax2onnx replaces it while it converts a program.
    monkeypatch.setattr(jnp, "shape", lambda x: jnp.asarray(np.shape(x)))
    assert jax.eval_shape(teachers.all_logits, x).shape == (4, 2, K)


def test_tempered_members_have_their_logits_divided():
    functions = [lambda x, s=s: s * x[:, :K] for s in (1.0, 3.0)]
    teachers = ensemble.teachers_from_functions(functions)
    x = jnp.arange(2.0 * K).reshape(2, K)
    tempered = ensemble.temper(teachers, [2.0, 4.0])
    expected = [x / 2, 3 * x / 4]
    np.testing.assert_array_equal(tempered.all_logits(x), expected)
    np.testing.assert_array_equal(tempered.all_logits(x, members_at_once=1), expected)
    gradient = jax.jit(jax.grad(lambda x, m: tempered.member_logits(m, x).sum()))
    for m, slope in enumerate((0.5, 0.75)):
        np.testing.assert_array_equal(tempered.member_logits(m, x), expected[m])
        np.testing.assert_array_equal(gradient(x, m), jnp.full_like(x, slope))
    for wrong in ([1.0], [1.0, 0.0], [1.0, np.nan]):
        with pytest.raises(InputError, match=r"temperatures.*accepted: "):
            ensemble.temper(teachers, wrong)


def test_stack_undoes_unstack(state):
    again = ensemble.stack(ensemble.unstack(state.variables))
    assert_trees_close(again, state.variables, rtol=0)
    one = jax.jit(ensemble.select)(state.variables, 1)
    assert_trees_close(one, ensemble.unstack(state.variables)[1], rtol=0)


def test_a_member_that_does_not_exist_is_refused(model, state, batch):
    stacked = {"w": jnp.arange(3.0), "b": jnp.zeros((2, 4))}
    with pytest.raises(InputError, match=r"member=2 of arrays of \[2, 3\] members"):
        ensemble.select(stacked, 2)
    with pytest.raises(InputError, match=r"are of 2 and \[3\] members; accepted: arr"):
        ensemble.member_map(lambda tree: tree["w"], (0,), strategy="unroll")(stacked)
    keys = jax.random.split(jax.random.key(0), 2)
    single = ensemble.select(state.variables, 0)
    with pytest.raises(InputError, match="dropout_rate=0 leaves equal members"):
        ensemble.teachers_from_masks(model, single, keys)
    for teachers in (
        ensemble.teachers_from_variables(model, state.variables),
        ensemble.teachers_from_masks(model.clone(dropout_rate=0.5), single, keys),
    ):
        for m in (-1, teachers.num_members):
            with pytest.raises(InputError, match=rf"member={m} of .*; accepted: 0 to"):
                teachers.member_logits(m, batch["image"][0])


def test_stack_refuses_other_architectures():
    with pytest.raises(InputError, match="member 1 has other parameters"):
        ensemble.stack([{"w": jnp.zeros(3)}, {"w": jnp.zeros(4)}])
    with pytest.raises(InputError, match="empty"):
        ensemble.stack([])


def test_vmap_equals_unroll(model, tx, state, batch):
    results = []
    for strategy in ensemble.STRATEGIES:
        step = jax.jit(
            lambda s, b, k, strategy=strategy: ensemble.train_step(
                s, b, k, model=model, tx=tx, strategy=strategy
            )
        )
        new, metrics = step(state, batch, jax.random.key(1))
        x = batch["image"][0]
        new_logits = ensemble.logits(model, new.variables, x, strategy=strategy)
        results.append((new, metrics, new_logits))
    assert_trees_close(*results, atol=1e-5)


def test_train_step_is_sgd_on_each_members_own_batch(model, tx, state, batch):
    new, metrics = ensemble.train_step(
        state, batch, jax.random.key(1), model=model, tx=tx, label_smoothing=0.1
    )
    assert new.step == 1
    expected_losses = []
    for m, own in enumerate(ensemble.unstack(state.variables)):

        def loss_fn(params, own=own, m=m):
            logits, _ = model.apply(
                {**own, "params": params},
                batch["image"][m],
                train=True,
                mutable=["batch_stats"],
            )
            label = jax.nn.one_hot(batch["label"][m], logits.shape[-1])
            smooth = 0.9 * label + 0.1 / logits.shape[-1]
            return losses.cross_entropy(logits, smooth).mean()

        loss, grads = jax.jit(jax.value_and_grad(loss_fn))(own["params"])
        stepped = jax.tree.map(lambda p, g: p - 0.1 * g, own["params"], grads)
        assert_trees_close(ensemble.select(new.params, m), stepped, atol=1e-5)
        expected_losses.append(loss)
    np.testing.assert_allclose(metrics["loss"], expected_losses, rtol=1e-5)


def test_mixup_mixes_each_members_images_and_labels(model, tx, state, batch):
    def own_loss(params, model_state, batch, share, other):
        image, label = batch["image"], batch["label"]
        image = share * image + (1 - share) * image[other]
        variables = {"params": params, **model_state}
        logits, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        log_p, rows = jax.nn.log_softmax(logits), jnp.arange(B)
        mixed = share * log_p[rows, label] + (1 - share) * log_p[rows, label[other]]
        hits = [(logits.argmax(-1) == y).mean() for y in (label, label[other])]
        return -mixed.mean(), share * hits[0] + (1 - share) * hits[1]

    key = jax.random.key(1)
    step = functools.partial(ensemble.train_step, state, model=model, tx=tx)
    new, metrics = jax.jit(functools.partial(step, mixup_alpha=0.8))(batch, key)
    draw = jax.jit(
        functools.partial(perturbations.mixup_pairs, mixup_alpha=0.8), static_argnums=1
    )
    pairs = [draw(stream(k, "mixup"), B) for k in jax.random.split(key, M)]
    assert len({float(share) for share, _ in pairs}) == M
    grad_fn = jax.jit(jax.value_and_grad(own_loss, has_aux=True))
    for m, pair in enumerate(pairs):
        own = ensemble.select((state.params, state.model_state, batch), m)
        (loss, accuracy), grads = grad_fn(*own, *pair)
        stepped = jax.tree.map(lambda p, g: p - 0.1 * g, own[0], grads)
        assert_trees_close(ensemble.select(new.params, m), stepped, atol=1e-5)
        np.testing.assert_allclose(metrics["loss"][m], loss, rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"][m], accuracy, rtol=1e-5)
    with pytest.raises(InputError, match="mixup_alpha=-1 is out of range"):
        step(batch, key, mixup_alpha=-1)


class _Bias(nn.Module):
    """Logits that do not depend on the image."""

    @nn.compact
    def __call__(self, x, train):
        bias = self.param("bias", nn.initializers.zeros, (2,))
        return jnp.broadcast_to(bias, (len(x), 2))


def test_a_step_on_soft_labels_by_hand():
    model, tx = _Bias(), optax.sgd(1.0)
    keys = jax.random.split(jax.random.key(0), 1)
    state = ensemble.create_state(model, tx, keys, jnp.zeros((1, 1)))
    state = state._replace(params={"bias": jnp.log(jnp.array([[2.0, 1.0]]))})
    labels = jnp.array([[[0.25, 0.75], [0.5, 0.5]]])
    batch = {"image": jnp.zeros((1, 2, 1)), "label": labels}
    new, metrics = ensemble.train_step(
        state, batch, jax.random.key(1), model=model, tx=tx
    )
    # p = (2/3, 1/3), and the mean label is (3/8, 5/8).
    loss = -3 / 8 * np.log(2 / 3) - 5 / 8 * np.log(1 / 3)
    np.testing.assert_allclose(metrics["loss"], [loss], rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], [3 / 8], rtol=1e-6)
    gradient = np.array([[2 / 3 - 3 / 8, 1 / 3 - 5 / 8]])
    expected = np.log([[2.0, 1.0]]) - gradient
    np.testing.assert_allclose(new.params["bias"], expected, rtol=1e-6, atol=1e-7)


def test_training_updates_the_running_statistics(model, tx, state, batch):
    new, _ = ensemble.train_step(state, batch, jax.random.key(1), model=model, tx=tx)
    updated = jax.tree.map(
        lambda a, b: bool((a != b).any()), state.model_state, new.model_state
    )
    assert all(jax.tree.leaves(updated))


@pytest.mark.parametrize("source", ["variables", "functions"])
def test_teachers(model, state, batch, source):
    x = batch["image"][0]
    if source == "variables":
        teachers = ensemble.teachers_from_variables(model, state.variables)
    else:
        functions = [
            lambda x, v=v: model.apply(v, x, train=False)
            for v in ensemble.unstack(state.variables)
        ]
        teachers = ensemble.teachers_from_functions(functions)
    everyone = teachers.all_logits(x)
    assert teachers.num_members == M
    traced = jax.jit(teachers.member_logits)
    for m in range(M):
        np.testing.assert_allclose(teachers.member_logits(m, x), everyone[m], atol=1e-5)
        np.testing.assert_allclose(traced(m, x), everyone[m], atol=1e-5)


def test_unknown_strategy(model, state, batch):
    with pytest.raises(InputError, match=r"member_strategy='loop'.*vmap, unroll"):
        ensemble.logits(model, state.variables, batch["image"][0], strategy="loop")
    with pytest.raises(InputError, match="at least one x -> logits"):
        ensemble.teachers_from_functions([])


def test_members_of_one_network_are_traced_once():
    traced = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            traced.append(x.shape)
            return nn.Dense(3)(x)

    x = np.ones((2, 4), np.float32)
    keys = jax.random.split(jax.random.key(0), 3)
    variables = ensemble.init(Counted(), keys, x)
    traced.clear()

    def program(variables, x):
        teachers = ensemble.teachers_from_variables(
            Counted(), variables, strategy="unroll"
        )
        return teachers.all_logits(x), teachers.member_logits(jnp.int32(1), x)

    every, one = jax.jit(program)(variables, x)
    jax.make_jaxpr(lambda *args: program(*args)[0] + 1)(variables, x)
    assert traced == [x.shape]
    np.testing.assert_allclose(every[1], one, rtol=1e-6)
    kernel, bias = (variables["params"]["Dense_0"][k] for k in ("kernel", "bias"))
    np.testing.assert_allclose(one, x @ kernel[1] + bias[1], rtol=1e-6)


def test_networks_that_are_not_hashable_are_members_too():
    class Scaled(nn.Module):
        factors: np.ndarray

        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(2)(x * self.factors)

    model = Scaled(np.arange(4, dtype=np.float32))
    with pytest.raises(TypeError):
        hash(model)
    x = np.ones((2, 4), np.float32)
    variables = ensemble.init(model, jax.random.split(jax.random.key(0), 2), x)
    found = ensemble.logits(model, variables, x)
    expected = model.apply(ensemble.select(variables, 1), x, train=False)
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
