"""Tests that options which save memory change no results."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax import linen as nn

from configs import digits
from edp import ensemble, models
from edp import perturbations as perturbations_lib
from edp.errors import InputError
from edp.experiment import settings, validate
from edp.experiment.create import create_experiment
from edp.perturbations import QUANTITIES
from edp.runtime import optimizers, xla

M, B, K = 4, 6, 3
SHAPE = (8, 8, 1)


def build_model(name="convnet", **config):
    config = ml_collections.ConfigDict({"name": name, **config})
    return models.create_model(config, num_classes=K, mean=(0.5,), std=(0.25,))


class Net(nn.Module):
    """Compiles quickly."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.tanh(nn.Dense(32)(x.reshape(x.shape[0], -1)))
        return nn.Dense(K)(nn.tanh(nn.Dense(32)(x)))


@pytest.fixture(scope="module")
def variables():
    keys = jax.random.split(jax.random.key(0), M)
    return ensemble.init(Net(), keys, jnp.zeros((1, *SHAPE)))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(0.2, 0.8, size=(M, B, *SHAPE)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, K, size=(M, B))),
    }


def assert_close(a, b, **tolerances):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), a, b)


# --- peak_bytes -------------------------------------------------------------------


def test_peak_bytes_by_hand():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)
    compiled = jax.jit(lambda x: x + 1).lower(x).compile()
    assert xla.peak_bytes(compiled) == 2 * 4096
    compiled = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert xla.peak_bytes(compiled) == 4096


# --- members_at_once --------------------------------------------------------------


def test_perturbations_do_not_depend_on_members_at_once(variables, batch):
    @functools.partial(jax.jit, static_argnums=2)
    def perturbed(variables, x, members_at_once):
        teachers = ensemble.teachers_from_variables(Net(), variables)
        return {
            quantity: perturbations_lib.create_perturbation(
                {
                    "perturbation": "disagreement",
                    "step_size": 0.05,
                    "quantity": quantity,
                    "members_at_once": members_at_once,
                }
            )(jax.random.key(1), x, teachers)
            for quantity in QUANTITIES
        }

    x = batch["image"][0]
    expected = perturbed(variables, x, None)
    assert all((value != x).any() for value in expected.values())
    for members_at_once in (1, 2):
        assert_close(perturbed(variables, x, members_at_once), expected, atol=1e-6)


def gradient_peak(variables, members_at_once):
    def pull_back(variables, x, cotangent):
        teachers = ensemble.teachers_from_variables(Net(), variables)
        logits_fn = functools.partial(
            teachers.all_logits, members_at_once=members_at_once
        )
        return jax.vjp(logits_fn, x)[1](cotangent)[0]

    shapes = [jnp.zeros((512, *SHAPE)), jnp.zeros((M, 512, K))]
    return xla.peak_bytes(jax.jit(pull_back).lower(variables, *shapes).compile())


def test_fewer_members_at_once_take_less_memory(variables):
    one, two, everyone = (gradient_peak(variables, n) for n in (1, 2, None))
    assert one < two < everyone
    assert gradient_peak(variables, M) == everyone


@pytest.mark.parametrize("strategy", ensemble.STRATEGIES)
def test_training_does_not_depend_on_members_at_once(strategy, batch):
    tx = optax.sgd(0.1, momentum=0.9)
    keys = jax.random.split(jax.random.key(0), M)
    state = ensemble.create_state(Net(), tx, keys, batch["image"][0, :1])

    def step(members_at_once):
        return jax.jit(
            lambda *args: ensemble.train_step(
                *args,
                model=Net(),
                tx=tx,
                strategy=strategy,
                members_at_once=members_at_once,
            )
        )(state, batch, jax.random.key(1))

    assert_close(step(2), step(None), atol=1e-6)


def test_functions_take_members_at_once(variables, batch):
    x = batch["image"][0]
    members = ensemble.unstack(variables)
    teachers = ensemble.teachers_from_functions(
        [lambda x, v=v: Net().apply(v, x, train=False) for v in members]
    )
    gradients = [
        jax.vjp(functools.partial(teachers.all_logits, members_at_once=n), x)[1](
            jnp.ones((M, B, K)).at[0, 0].set(-2)
        )
        for n in (None, 2)
    ]
    assert_close(*gradients, atol=1e-6)
    with pytest.raises(InputError, match="members_at_once=3"):
        teachers.all_logits(x, members_at_once=3)


def test_groups_must_divide_the_members(tmp_path):
    message = (
        r"teachers\.members_at_once=3 does not divide the 4 members of a device; "
        "accepted: 1, 2, 4 or None"
    )
    config = digits.get_config()
    config.teachers.members_at_once = 3
    with pytest.raises(InputError, match=message):
        create_experiment(config, tmp_path)
    config.teachers.members_at_once = 0
    with pytest.raises(InputError, match=r"teachers\.members_at_once=0 must be"):
        validate.check(config)


def test_memory_options_are_not_dependencies_of_teachers():
    config = digits.get_config()
    before = settings.teacher_dependencies(config)
    config.model.remat = True
    config.teachers.members_at_once = 1
    validate.check(config)
    assert settings.teacher_dependencies(config) == before
    config.teachers.accumulate_steps = 2
    assert settings.teacher_dependencies(config) != before


# --- remat ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config"),
    [("resnet", {"depth": 8, "width": 2}), ("wide_resnet", {"depth": 10})],
)
def test_remat_changes_no_value_and_no_gradient(name, config, batch):
    if name == "wide_resnet":
        config = {**config, "widen_factor": 1}
    x = batch["image"][0]

    def loss_and_grads(remat):
        model = build_model(name, remat=remat, **config)
        variables = jax.jit(functools.partial(model.init, train=False))(
            jax.random.key(0), x
        )

        def loss(params):
            logits, updated = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum(), updated

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    assert_close(loss_and_grads(True), loss_and_grads(False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "num_blocks"),
    [
        ("resnet", {"depth": 14}, 6),
        ("wide_resnet", {"depth": 16, "widen_factor": 1}, 6),
        ("resnet50", {}, 16),
    ],
)
def test_remat_wraps_every_block_and_renames_nothing(name, config, num_blocks):
    x = jnp.zeros((1, 32, 32, 1))

    def shapes(remat):
        model = build_model(name, remat=remat, **config)
        init = functools.partial(model.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), x)
        apply = functools.partial(model.apply, train=False)
        jaxpr = jax.make_jaxpr(apply)(variables, x)
        names = [equation.primitive.name for equation in jaxpr.eqns]
        return variables, sum(n.startswith(("remat", "checkpoint")) for n in names)

    plain, none = shapes(False)
    again, blocks = shapes(True)
    assert plain == again
    assert (none, blocks) == (0, num_blocks)


# --- accumulate_steps -------------------------------------------------------------

OPTIMIZER = {
    "schedule": "cosine",
    "learning_rate": 0.1,
    "num_epochs": 3,
    "warmup_epochs": 1.0,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.01,
    "rank_one_lr_factor": 0.5,
}


rule = optimizers.decay_all_but(lambda params: {name: name == "r" for name in params})


@pytest.mark.parametrize("stacked", [False, True])
def test_accumulated_steps_are_steps_of_the_mean_gradient(stacked):
    # 3 epochs of 4 steps, an update every two: the schedule at every second step.
    tx = optimizers.create_optimizer({**OPTIMIZER, "accumulate_steps": 2}, 4, rule)
    coarse = optimizers.create_optimizer(OPTIMIZER, 2, rule)
    rng = np.random.default_rng(0)
    shape = (M, 12, 5) if stacked else (12, 5)
    gradients = {name: rng.normal(size=shape) for name in ("kernel", "r")}
    params = jax.tree.map(lambda g: jnp.ones_like(g[..., 0, :]), gradients)
    expected, means = params, jax.tree.map(jnp.asarray, params)
    init, update = tx.init, jax.jit(tx.update)
    coarse_init, coarse_update = coarse.init, jax.jit(coarse.update)
    if stacked:
        init, update = jax.vmap(init), jax.vmap(update)
        coarse_init, coarse_update = jax.vmap(coarse_init), jax.vmap(coarse_update)
    state, coarse_state = init(params), coarse_init(params)
    for step in range(12):
        gradient = jax.tree.map(lambda g, step=step: g[..., step, :], gradients)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        if step % 2:
            means = jax.tree.map(
                lambda g, step=step: g[..., step - 1 : step + 1, :].mean(-2), gradients
            )
            updates, coarse_state = coarse_update(means, coarse_state, expected)
            expected = optax.apply_updates(expected, updates)
        assert_close(params, expected, rtol=1e-5)


def test_the_schedule_of_accumulated_steps_ends_with_training():
    steps_per_epoch, every = 40, 6
    config = {**OPTIMIZER, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    tx = optimizers.create_optimizer(
        {**config, "accumulate_steps": every}, steps_per_epoch
    )
    schedule = optimizers.create_schedule(config, steps_per_epoch)
    params, rates = jnp.zeros(()), []
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(3 * steps_per_epoch):
        step, state = update(jnp.ones(()), state, params)
        rates.append(-float(step))
    updated = rates[every - 1 :: every]
    assert sum(rates) == pytest.approx(sum(updated))
    np.testing.assert_allclose(
        updated, [schedule(every * i) for i in range(20)], rtol=1e-5, atol=1e-9
    )
    assert updated[-1] < 0.02 * max(updated)


def test_two_halves_of_an_accumulated_step_are_one_step(batch):
    x = batch["image"][0, :1]
    keys = jax.random.split(jax.random.key(0), M)

    def train(accumulate_steps, num_steps):
        config = {**OPTIMIZER, "schedule": "constant"}
        config["accumulate_steps"] = accumulate_steps
        tx = optimizers.create_optimizer(config, 4)
        state = ensemble.create_state(Net(), tx, keys, x)
        step = jax.jit(functools.partial(ensemble.train_step, model=Net(), tx=tx))
        states = [state]
        for _ in range(num_steps):
            state, _ = step(state, batch, jax.random.key(1))
            states.append(state)
        return states

    before, half, whole = train(2, 2)
    (_, one) = train(1, 1)
    assert_close(half.params, before.params, rtol=0)
    assert_close(whole.params, one.params, atol=1e-6)
    assert int(whole.step) == 2
