"""Tests of the kinds of teachers: their members, and the settings that they refuse."""

import functools

import compiled
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from tiny_configs import tiny_config

from edp import ensemble, models
from edp.errors import InputError
from edp.experiment import teacher_kinds, validate

B, K, M = 6, 4, 3
SMALLEST = [
    {"name": "convnet", "width": 4},
    {"name": "resnet", "depth": 8, "width": 4, "remat": True},
]


def build_model(**config):
    config = ml_collections.ConfigDict(config)
    return models.create_model(config, num_classes=K, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("config", SMALLEST, ids=lambda config: config["name"])
def test_a_mask_makes_a_network_a_function(config):
    plain, model = build_model(**config), build_model(**config, dropout_rate=0.5)
    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    variables = compiled.init(plain, jax.random.key(1), x)
    jax.tree.map(
        np.testing.assert_array_equal,
        variables,
        compiled.init(model, jax.random.key(1), x),
    )
    keys = jax.random.split(jax.random.key(2), M)

    @jax.jit
    def all_logits(variables, x):
        return ensemble.teachers_from_masks(model, variables, keys).all_logits(x)

    everyone = all_logits(variables, x)
    assert everyone.shape == (M, B, K)
    # Independent of the rest of the batch and of the position in it.
    again = all_logits(variables, x[::-1])[:, ::-1]
    np.testing.assert_allclose(everyone, again, atol=1e-5)
    teachers = ensemble.teachers_from_masks(model, variables, keys)
    for m in range(M):
        own = jax.jit(teachers.member_logits)(m, x)
        np.testing.assert_allclose(own, everyone[m], atol=1e-5)
        assert np.abs(everyone[m] - everyone[m - 1]).max() > 1e-3
    # Without a mask, the plain network.
    np.testing.assert_array_equal(
        compiled.logits(model, variables, x), compiled.logits(plain, variables, x)
    )


def test_networks_and_masks():
    model = build_model(name="convnet", width=4, dropout_rate=0.5)
    plain = build_model(name="convnet", width=4)
    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    keys = jax.random.split(jax.random.key(2), 4)
    networks = ensemble.init(model, jax.random.split(jax.random.key(1), 2), x[:1])
    kind = teacher_kinds.KINDS["dropout"]

    @functools.partial(jax.jit, static_argnums=0)
    def logits(model, variables):
        teachers = kind.teachers(
            model, variables, 4, jax.random.key(2), strategy=None, mesh=None
        )
        return teachers.all_logits(x), teachers.member_logits(3, x)

    everyone, last = logits(model, networks)
    np.testing.assert_allclose(everyone[3], last, atol=1e-6)
    for m in range(4):
        own = ensemble.select(networks, m % 2)
        expected = compiled.logits(model, own, x, {"dropout": keys[m]})
        np.testing.assert_allclose(everyone[m], expected, atol=1e-5)
    # Without masks, a network has the same logits under each.
    everyone, _ = logits(plain, networks)
    deep = ensemble.logits(plain, networks, x)
    np.testing.assert_allclose(everyone, jnp.concatenate([deep, deep]), atol=1e-6)
    # Variables that a traced function holds as constants, as an exported program does.
    held = jax.device_get(networks)
    shape = jax.eval_shape(lambda: logits.__wrapped__(model, held)[0]).shape
    assert shape == everyone.shape
    one = ensemble.select(networks, jnp.array([0]))
    alone = ensemble.teachers_from_masks(model, ensemble.select(one, 0), keys)
    np.testing.assert_allclose(
        logits(model, one)[0], jax.jit(alone.all_logits)(x), atol=1e-6
    )


def test_a_prior_adds_a_frozen_network():
    plain = build_model(name="convnet", width=4)
    kind = teacher_kinds.KINDS["prior"]

    def network(scale):
        return kind.network(lambda: plain, {"prior_scale": scale})

    x = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
    key = jax.random.key(3)
    init = functools.partial(plain.init, train=False)
    without, variables = (
        jax.jit(functools.partial(network(scale).init, train=False))(key, x)
        for scale in (0.0, 1.5)
    )
    # At β = 0 it is the plain network bit for bit; its own start never depends on β.
    jax.tree.map(np.testing.assert_array_equal, without, jax.jit(init)(key, x))
    np.testing.assert_array_equal(
        compiled.logits(network(0.0), without, x), compiled.logits(plain, without, x)
    )
    assert variables.keys() == {"params", "batch_stats", "prior"}
    own = {name: variables[name] for name in without}
    jax.tree.map(np.testing.assert_array_equal, own, without)

    kept = variables["prior"]["random_network"]
    assert not np.allclose(
        kept["variables"]["params"]["head"]["kernel"], own["params"]["head"]["kernel"]
    )
    prior = compiled.logits(plain, kept["variables"], x) / kept["deviation"]
    expected = compiled.logits(plain, own, x) + 1.5 * prior
    found = compiled.logits(network(1.5), variables, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < prior.std() < 5

    tx = optax.sgd(0.1)
    state = ensemble.create_state(network(1.5), tx, key[None], x[:1])
    batch = {"image": x[None], "label": jnp.zeros((1, B), int)}
    new, _ = jax.jit(functools.partial(ensemble.train_step, model=network(1.5), tx=tx))(
        state, batch, key
    )
    before, after = state.model_state["prior"], new.model_state["prior"]
    jax.tree.map(np.testing.assert_array_equal, before, after)
    changed = jax.tree.map(lambda a, b: (a != b).any(), state.params, new.params)
    assert all(jax.tree.leaves(changed))

    # At β = 0, the program of a training step too is that of `deep`.
    start = jax.eval_shape(lambda: ensemble.create_state(plain, tx, key[None], x[:1]))

    def program(model):
        step = functools.partial(ensemble.train_step, model=model, tx=tx)
        return str(jax.make_jaxpr(step)(start, batch, key))

    assert program(network(0.0)) == program(plain)


def test_packed_members_are_narrow():
    config = ml_collections.ConfigDict({"name": "resnet", "depth": 8, "width": 16})
    build = functools.partial(
        models.create_model, config, num_classes=K, mean=(0.5,), std=(0.25,)
    )
    kind = teacher_kinds.KINDS["packed"]
    assert kind.network(build, {"num_members": 8}).channels(16) == 4
    section = {"num_members": 4, "packed_width": 3.0}
    assert kind.network(build, section).channels(16) == 12
    # At α = M it is the network of `deep`.
    assert kind.network(build, {**section, "packed_width": 4.0}) == build()


def test_the_epochs_of_checkpoints():
    section = {"num_members": 3, "num_epochs": 10}
    kind = teacher_kinds.KINDS["checkpoint"]
    for between, epochs in ((1, [8, 9, 10]), (4, [2, 6, 10])):
        select = kind.select({**section, "epochs_between": between}, None)
        best = select.begin({"w": jnp.zeros((1, 2))})
        for epoch in range(1, 11):
            best, _ = select.update(best, {"w": jnp.full((1, 2), epoch)}, epoch)
        assert best.variables["w"][:, 0].tolist() == epochs
        assert select.summary(best) == {"selected_epoch": epochs}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "checkpoint", "epochs_between": 3},
            "num_epochs=2 must be at least 4",
        ),
        ({"kind": "checkpoint", "select": "best"}, "select='best' must be last for"),
        ({"kind": "checkpoint", "bootstrap": True}, "bootstrap=True must be False"),
        ({"kind": "dropout", "networks": 3}, "networks=3 must divide .*num_members=2"),
        ({"kind": "dropout", "networks": 1}, "dropout_rate=None must be above 0"),
        ({"kind": "prior", "prior_scale": -1.0}, "prior_scale=-1.0 must be"),
        ({"kind": "swag"}, "swag_start=None of .*num_epochs=2 .* from epoch 3 on"),
        ({"kind": "swag", "num_epochs": 3, "swag_start": 3}, "accepted: 2 to 2"),
        ({"kind": "swag", "num_epochs": 8, "swag_rank": 1}, "swag_rank=1 must be at"),
        ({"kind": "swag", "num_epochs": 8, "ema_decay": 0.9}, "ema_decay=0.9 must be"),
        ({"kind": "swag", "num_epochs": 8, "networks": 3}, "networks=3 must divide"),
        (
            {"kind": "swag", "num_epochs": 8, "learning_rate": 1e-3},
            r"swag_learning_rate=0\.05 must be at most teachers.learning_rate=0\.001",
        ),
        ({"kind": "packed", "packed_width": 0.0}, "packed_width=0.0 must be"),
        ({"mixup_alpha": -0.1}, "teachers.mixup_alpha=-0.1 must be"),
    ],
)
def test_settings_that_a_kind_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        validate.check(tiny_config(**settings))


def test_as_many_networks_as_members_need_no_masks():
    validate.check(tiny_config(kind="dropout", networks=2, bootstrap=True))
