"""Tests of batch statistics that are recomputed for collected networks."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from tiny_configs import tiny_config

from edp import data, ensemble
from edp.errors import InputError
from edp.experiment import batch_statistics
from edp.experiment.create import create_experiment
from edp.runtime.rng import stream


def test_batch_statistics_are_recomputed_from_training_images(tmp_path):
    config = tiny_config()
    config.data.crop_padding = 0
    experiment = create_experiment(config, tmp_path)
    run = experiment.run
    model = run.build_model()
    variables = ensemble.init(model, jax.random.split(run.key, 2), run.example)
    new = batch_statistics.recompute(experiment, model, variables, run.key)
    jax.tree.map(np.testing.assert_array_equal, new["params"], variables["params"])
    order = data.EpochOrder(
        np.asarray(jax.random.key_data(stream(run.key, "order"))),
        run.num_train,
        20,
        None,
    )
    batches = np.asarray(order(0))
    assert batches.shape == (run.num_train // 20, 20) and len(batches) > 1
    images = np.float32(experiment.data.dataset.train.images) / 255
    for m in range(2):
        own = ensemble.select(variables, m)
        _, seen = model.apply(
            own,
            images,
            train=False,
            capture_intermediates=lambda one, _: one.name == "conv1",
        )
        maps = np.float64(seen["intermediates"]["conv1"]["__call__"][0])[batches]
        found = ensemble.select(new["batch_stats"]["norm1"], m)
        np.testing.assert_allclose(found["mean"], maps.mean((0, 1, 2, 3)), atol=1e-5)
        expected = maps.var((1, 2, 3)).mean(0)
        np.testing.assert_allclose(found["var"], expected, rtol=1e-4)


def test_a_layer_can_have_a_momentum_of_its_own(tmp_path):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = 100 * x.mean((1, 2))
            for momentum in (0.5, 0.99):
                x = nn.BatchNorm(not train, momentum=momentum)(x)
            return x

    config = tiny_config()
    config.data.crop_padding = 0
    experiment = create_experiment(config, tmp_path)
    run, model = experiment.run, Net()
    variables = ensemble.init(model, jax.random.split(run.key, 2), run.example)
    new = batch_statistics.recompute(experiment, model, variables, run.key)
    images = experiment.data.dataset.train.images / 255
    first, second = (new["batch_stats"][f"BatchNorm_{n}"] for n in range(2))
    mean = 100 * images.mean((0, 1, 2))
    np.testing.assert_allclose(first["mean"], [mean] * 2, rtol=1e-4)
    np.testing.assert_allclose(second["mean"], np.zeros_like([mean] * 2), atol=1e-5)
    np.testing.assert_allclose(second["var"], np.ones_like([mean] * 2), rtol=1e-4)


def test_a_frozen_layer_is_refused(tmp_path):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.BatchNorm(True, name="frozen")(x.mean((1, 2)))

    experiment = create_experiment(tiny_config(), tmp_path)
    run, model = experiment.run, Net()
    variables = ensemble.init(model, jax.random.split(run.key, 2), run.example)
    with pytest.raises(InputError, match=r"batch_stats\['frozen'\].* momentum below 1"):
        batch_statistics.recompute(experiment, model, variables, run.key)
