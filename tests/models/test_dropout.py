"""Dropout: masks in training, and fixed ones."""

import jax
import jax.numpy as jnp
import numpy as np

from edp import models


def test_half_of_the_features_are_dropped_of_each_input_in_training():
    model = models.Dropout(0.5, train=True)
    x = jnp.ones((50, 200))
    dropped = model.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert abs(np.mean(dropped) - 1) < 0.05
    assert (dropped[0] != dropped[1]).any()
    fixed = models.Dropout(0.5, train=False)
    masked = fixed.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(masked)) == {0.0, 2.0} and (masked == masked[0]).all()
    assert (fixed.apply({}, x) == x).all()
    # Without dropout, no PRNG stream is requested.
    assert (models.Dropout(0.0, train=True).apply({}, x) == x).all()
