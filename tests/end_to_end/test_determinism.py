"""Tests that the seed determines all random numbers, in independent streams."""

import functools
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from edp import data, ensemble, models, perturbations
from edp.experiment import step_inputs
from edp.runtime import rng

ROOT = pathlib.Path(__file__).parents[2]
N, B, M = 24, 6, 2


@functools.cache
def images():
    generator = np.random.default_rng(0)
    shown = generator.integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)
    return jnp.asarray(shown), jnp.arange(N) % 3


@functools.cache
def initial(seed, stage, members):
    """Returns the initial parameters [M, P] of members."""
    config = ml_collections.ConfigDict({"name": "convnet", "width": 2})
    model = models.create_model(config, num_classes=3, mean=(0.5,), std=(0.5,))
    key = rng.stream(jax.random.key(seed), stage)
    keys = jax.random.split(rng.stream(key, "init"), members)
    variables = ensemble.init(model, keys, jnp.zeros((1, 8, 8, 1)))
    weights = jax.tree.leaves(variables["params"])
    return np.concatenate([np.asarray(w).reshape(members, -1) for w in weights], 1)


@functools.cache
def draws(seed, *, stage="teachers", step=0, members=M, padding=2, eta=0.1):
    """Returns the random numbers of a stage for a seed, as the commands draw them."""
    key = rng.stream(jax.random.key(seed), stage)
    settings = ml_collections.ConfigDict(
        {"data": {"crop_padding": padding, "flip": padding > 0}}
    )
    experiment = types.SimpleNamespace(config=settings, mesh=None)

    def order(name, own=None):
        key_data = np.asarray(jax.random.key_data(rng.stream(key, name)))
        return data.EpochOrder(key_data, N, B, members, own)

    orders = np.asarray(order("order")(np.int32(step // (N // B))))
    own = np.asarray(jax.random.key_data(rng.stream(key, "bootstrap")))
    bootstrapped = np.asarray(order("order", own)(np.int32(0)))
    fixed = jnp.arange(B)  # so that crops are compared on the same images
    batch, step_key = step_inputs.draw_batch(experiment, key, step, images(), fixed)
    perturb_key, _ = jax.random.split(step_key)
    perturbed = perturbations.gaussian(
        perturb_key, None, 0.5 * jnp.ones(B), step_size=eta
    )
    return {
        "order": orders,
        "bootstrap": bootstrapped,
        "augmentation": np.asarray(batch["image"]),
        "initialisation": initial(seed, stage, members)[0],
        "perturbation": np.asarray(perturbed),
    }


def changed(one, other):
    return {name for name in one if not np.array_equal(one[name], other[name])}


ALL = {"order", "bootstrap", "augmentation", "initialisation", "perturbation"}


def test_the_same_seed_draws_the_same():
    first = draws(0)
    draws.cache_clear()
    initial.cache_clear()
    assert changed(first, draws(0)) == set()
    assert not np.array_equal(*initial(0, "teachers", M))  # members start apart


def test_the_seed_reaches_everything():
    assert changed(draws(0), draws(1)) == ALL
    assert changed(draws(0), draws(2**32 - 1)) == ALL


def test_teachers_and_students_draw_apart():
    assert changed(draws(0), draws(0, stage="student")) == ALL


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"padding": 0}, {"augmentation"}),
        ({"eta": 0.2}, {"perturbation"}),
        ({"step": 1}, {"augmentation", "perturbation"}),  # of the same epoch
        ({"step": N // B}, {"augmentation", "perturbation", "order"}),
    ],
)
def test_a_consumer_changes_no_other(change, differs):
    assert changed(draws(0), draws(0, **change)) == differs


def test_another_member_changes_none_before_it():
    fewer, more = draws(0), draws(0, members=M + 1)
    for name in ("order", "bootstrap"):
        np.testing.assert_array_equal(more[name][:, :M], fewer[name])
        assert not np.array_equal(more[name][:, M], more[name][:, 0])
    assert changed(fewer, more) == {"order", "bootstrap"}  # they have more members


def test_streams_of_other_names_are_others():
    sources = [*(ROOT / "edp").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    text = "".join(path.read_text() for path in sources)
    called = re.findall(r"(?:rng\.stream|_key_data)\(\s*[\w.]+,\s*([^)]*)\)", text)
    names = {name for found in called for name in re.findall(r'"(\w+)"', found)}
    assert names >= {"teachers", "student", "init", "order", "crop", "bootstrap"}
    assert names >= {"step", "masks", "analysis"}
    key = jax.random.key(7)
    keys = [rng.stream(key, name) for name in sorted(names)]
    keys += [key, *(rng.stream(key, "teachers", name) for name in sorted(names))]
    rows = [tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in keys]
    assert len(set(rows)) == len(rows) == 2 * len(names) + 1
    bits = np.stack([jax.random.normal(k, (2000,)) for k in keys])
    between = np.corrcoef(bits)[np.triu_indices(len(keys), 1)]
    assert np.abs(between).max() < 0.15  # of 2,000 each: within six deviations
