"""Registry of property checks, and the assertions that they share."""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np
from property_cases import Case

CHECKS: dict[Callable, Callable[[Case], None]] = {}


def covers(*functions: Callable):
    """Returns a decorator that registers a check of these functions."""

    def register(check):
        CHECKS.update(dict.fromkeys(functions, check))
        return check

    return register


@functools.cache
def jitted(function, *static):
    return jax.jit(function, static_argnames=static)


def finite(value, shape, dtype=None, least=-math.inf, most=math.inf, slack=1e-6):
    """Asserts shape, dtype, finiteness and range; returns the value as float64."""
    assert value.shape == tuple(shape)
    if dtype is not None:
        assert value.dtype == dtype
    value = np.float64(value)
    assert np.isfinite(value).all()
    assert value.size == 0 or (least - slack <= value.min()), value.min()
    assert value.size == 0 or (value.max() <= most + slack), value.max()
    return value


def close(actual, expected, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(np.float64(actual), np.float64(expected), rtol, atol)
