"""BatchEnsemble: its members against plain networks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import (
    MEAN,
    SMALL,
    STD,
    build,
    images,
    quick_jit,
    random_variables,
    shapes,
)

from edp.models import count_params
from edp.models.classifier import fold, unfold
from edp.models.layers import convolve


def map_layers(params, change):
    """Applies `change` to every dictionary that holds a kernel."""
    if "kernel" in params:
        return change(params)
    if any(isinstance(value, dict) for value in params.values()):
        return {key: map_layers(value, change) for key, value in params.items()}
    return params


def of_equal_members(params, num_members):
    """Returns BatchEnsemble parameters whose members all equal the plain network."""

    def change(layer):
        fan_in, features = layer["kernel"].shape[-2:]
        factors = {
            "kernel": layer["kernel"],
            "r": np.ones((num_members, fan_in), np.float32),
            "s": np.ones((num_members, features), np.float32),
        }
        if "bias" in layer:
            factors["bias"] = np.tile(layer["bias"], (num_members, 1))
        return factors

    return map_layers(params, change)


def of_member(params, member):
    """Returns the plain parameters of one member: W ∘ (r_m s_mᵀ) and its bias."""

    def change(layer):
        plain = {
            "kernel": layer["kernel"] * np.outer(layer["r"][member], layer["s"][member])
        }
        return plain | ({"bias": layer["bias"][member]} if "bias" in layer else {})

    return map_layers(params, change)


def test_batch_ensemble_parameter_count_by_hand():
    convs = 27 * 16 + 2 * 9 * 16**2 + 9 * (16 * 32 + 32**2) + 9 * (32 * 64 + 64**2)
    norms = 2 * (16 + 2 * 16 + 2 * 32 + 2 * 64)
    plain = convs + norms + 64 * 10 + 10
    # Channels in and out of each of the seven convolutions and of the head.
    factors = 3 + 16 + 4 * 16 + (16 + 32) + 2 * 32 + (32 + 64) + 2 * 64 + (64 + 10)
    assert count_params(shapes(build("resnet", 10, depth=8))["params"]) == plain
    ensemble = shapes(build("resnet", 10, depth=8, num_members=4))
    assert count_params(ensemble["params"]) == plain + 4 * factors + 3 * 10


@pytest.mark.parametrize("name", SMALL)
def test_names_and_shapes_differ_only_in_the_factors(name):
    plain = shapes(build(name, **SMALL[name]))
    ensemble = shapes(build(name, **SMALL[name], num_members=2))
    plain_params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), plain["params"])
    chex.assert_trees_all_equal_shapes(
        ensemble["params"], of_equal_members(plain_params, 2)
    )
    chex.assert_trees_all_equal_shapes(ensemble["batch_stats"], plain["batch_stats"])


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_equal_members_are_the_plain_network(name):
    plain = build(name, **SMALL[name])
    ensemble = build(name, **SMALL[name], num_members=2)
    variables, x = random_variables(shapes(plain)), images()
    tiled = variables | {"params": of_equal_members(variables["params"], 2)}

    @quick_jit
    def run(variables, tiled):
        return [
            (
                model.apply(v, x, train=False),
                *model.apply(v, x, train=True, mutable=["batch_stats"]),
            )
            for model, v in ((plain, variables), (ensemble, tiled))
        ]

    (evaluated, trained, state), outputs = jax.device_get(run(variables, tiled))
    assert evaluated.shape == (3, 5)
    assert not np.allclose(evaluated, trained, atol=1e-2)
    expected = (np.stack([evaluated] * 2), np.stack([trained] * 2), state)
    chex.assert_trees_all_close(outputs, expected, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_each_member_is_the_plain_network_of_its_kernels(name):
    plain = build(name, **SMALL[name])
    ensemble = build(name, **SMALL[name], num_members=3)
    variables, x = random_variables(shapes(ensemble)), images(batch=2)
    logits = np.array(quick_jit(partial(ensemble.apply, train=False))(variables, x))
    assert logits.shape == (3, 2, 5)
    apply = quick_jit(partial(plain.apply, train=False))
    for member in range(3):
        own = variables | {"params": of_member(variables["params"], member)}
        np.testing.assert_allclose(logits[member], apply(own, x), rtol=1e-3, atol=1e-3)
    assert not np.allclose(logits[0], logits[1], atol=1e-2)
    assert not np.allclose(logits[:, 0], logits[:, 1], atol=1e-2)


def test_members_share_the_statistics_of_all_their_rows():
    model = build("convnet", width=4, num_members=2)
    variables, x = random_variables(shapes(model)), images()
    apply = partial(model.apply, train=True, mutable=["batch_stats"])
    _, state = quick_jit(apply)(variables, x)
    normalised = (x - np.array(MEAN)) / np.array(STD)
    rows = np.stack(
        [
            convolve(
                normalised, of_member(variables["params"], m)["conv1"]["kernel"], 1
            )
            for m in range(2)
        ]
    )
    before, after = variables["batch_stats"]["norm1"], state["batch_stats"]["norm1"]
    axes = (0, 1, 2, 3)
    np.testing.assert_allclose(
        after["mean"], 0.9 * before["mean"] + 0.1 * rows.mean(axes), atol=1e-5
    )
    np.testing.assert_allclose(
        after["var"], 0.9 * before["var"] + 0.1 * rows.var(axes), rtol=1e-4
    )


def test_folding_is_batch_major():
    folded = fold(jnp.array([[10.0], [20.0]]), 3)
    np.testing.assert_array_equal(folded[:, 0], [10, 10, 10, 20, 20, 20])
    unfolded = unfold(jnp.arange(6), 3)
    np.testing.assert_array_equal(unfolded, [[0, 3], [1, 4], [2, 5]])
