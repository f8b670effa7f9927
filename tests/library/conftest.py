"""Fixtures of the library's tests: a small batch and its teachers."""

import jax.numpy as jnp
import numpy as np
import pytest
from distillation_steps import B, K, build_model, teacher_variables

from edp import ensemble


@pytest.fixture(scope="session")
def batch():
    """Six random images with labels, as a batch."""
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.uniform(size=(B, 8, 8, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, K, size=B)),
    }


@pytest.fixture(scope="session")
def teachers():
    """Three small teachers with random weights."""
    return ensemble.teachers_from_variables(build_model(), teacher_variables())
