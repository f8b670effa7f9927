"""Tests of batch statistics that are recomputed for collected networks."""

import jax
import numpy as np
from tiny_configs import tiny_config

from edp import data, ensemble
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
