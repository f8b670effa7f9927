"""Tests of random streams."""

import jax
import numpy as np

from edp.runtime import rng

KEY = jax.random.key(3)


def test_streams_of_known_keys_are_computed_while_a_program_is_traced():
    def draw(step):
        return jax.random.fold_in(rng.stream(KEY, "a", "b"), step)

    names = [eqn.primitive.name for eqn in jax.make_jaxpr(draw)(5).eqns]
    assert names.count("random_fold_in") == 1  # that of the step
    found, of_traced = jax.jit(lambda key: (draw(5), rng.stream(key, "a", "b")))(KEY)
    expected = draw(5), rng.stream(KEY, "a", "b")
    for one, other in zip((found, of_traced), expected, strict=True):
        np.testing.assert_array_equal(*map(jax.random.key_data, (one, other)))
