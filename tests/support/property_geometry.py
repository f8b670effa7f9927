"""Property checks of the geometry of perturbations: directions, balls and ranges."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from property_cases import IMAGE
from property_checks import close, covers, finite, jitted

from edp.errors import InputError
from edp.perturbations import checks, geometry

RADIUS = math.sqrt(math.prod(IMAGE))  # of the ball, per unit of step size


def check_perturbed(case, x, perturbed, share=1.0):
    """Asserts the shape and dtype of x, the range [0, 1] and, to rounding, the ball."""
    values = finite(perturbed, x.shape, x.dtype, 0, 1, slack=0)
    distance = np.linalg.norm((values - np.float64(x)).reshape(len(x), -1), axis=1)
    radius = case.step_size * RADIUS * np.asarray(share)
    assert (distance <= radius * (1 + 1e-5) + RADIUS * case.eps).all()
    if case.step_size == 0:
        assert (values == np.float64(x)).all()


@covers(geometry.radius, geometry.per_example, geometry.unit)
def check_unit(case):
    b = case.shape[1]
    x = case.images(b)
    close(geometry.radius(x, case.step_size), case.step_size * RADIUS)
    assert geometry.per_example(jnp.zeros(b), x).shape == (b, 1, 1, 1)
    scale = case.rng.choice([0.0, 1e-30, 1e-7, 1.0, 1e4], size=(b, 1, 1, 1))
    direction = jnp.asarray(np.float32(scale * case.rng.normal(size=x.shape)), x.dtype)
    worst = float(case.rng.choice([np.nan, np.inf, -np.inf, 0.0]))
    for given in (direction, direction.at[0, 0, 0, 0].set(worst)):
        scaled = finite(jitted(geometry.unit)(given), x.shape, jnp.float32, -1, 1)
        length = np.linalg.norm(scaled.reshape(b, -1), axis=1)
        rows = np.float64(given).reshape(b, -1)
        usable = np.isfinite(rows).all(1) & (np.abs(rows).max(1) > 0)
        close(length, usable, 0, 1e-5)


@covers(geometry.within_ball, geometry.clip_and_detach)
def check_projection(case):
    x = case.images(case.shape[1])
    radius = geometry.radius(x, case.step_size)
    offset = case.rng.normal(size=x.shape) * case.rng.choice([0.0, 1e-3, 1.0, 1e4])
    far = x.astype(jnp.float32) + np.float32(offset)
    inside = jitted(geometry.within_ball)(far, x, radius)
    values = finite(inside, x.shape, jnp.float32)
    distance = (values - np.float64(x)).reshape(len(x), -1)
    distance = np.linalg.norm(distance, axis=1)
    assert (distance <= radius * (1 + 1e-5) + 1e-5).all()
    clipped = jitted(geometry.clip_and_detach, "clip")(inside, x, clip=(0.0, 1.0))
    check_perturbed(case, x, clipped)
    free = jitted(geometry.clip_and_detach, "clip")(inside, x, clip=None)
    close(free, inside, case.eps, 1e-6)


@covers(geometry.ascent_step)
def check_ascent_step(case):
    b = case.shape[1]
    gradient = case.rng.normal(size=(b, *IMAGE)) * case.rng.choice([1e-20, 1.0, 1e4])
    gradient = jnp.asarray(np.float32(gradient))
    length = case.step_size * RADIUS
    step = jitted(geometry.ascent_step)(gradient, length, None)
    size = np.linalg.norm(finite(step, gradient.shape).reshape(b, -1), axis=1)
    close(size, length, 1e-4, 0)
    scale = jnp.float32(case.rng.choice([0.01, 1.0, 255.0]))
    scaled = jitted(geometry.ascent_step)(gradient, length, scale)
    close(scaled, scale * step, 1e-4, 1e-6 * scale)


@covers(
    checks.check_input,
    checks.check_members,
    checks.check_temperature,
    checks.as_scale,
)
def check_checks(case):
    x = case.images(case.shape[1])
    checks.check_input(x, (0.0, 1.0))
    checks.check_input(x, None)
    for wrong in (x + 2, x - 2, jnp.full_like(x, jnp.inf)):
        with pytest.raises(InputError, match="outside clip"):
            checks.check_input(wrong, (0.0, 1.0))
        checks.check_input(wrong, None)
    with pytest.raises(InputError, match="uint8"):
        checks.check_input(x.astype(jnp.uint8), None)
    m, *rest = case.shape
    checks.check_members(case.logits(m + 1, *rest[:-1]))
    with pytest.raises(
        InputError, match=r"accepted: \[M, B, K\] of at least 2 members"
    ):
        checks.check_members(case.logits(1, *rest[:-1]))
    checks.check_temperature(case.temperature)
    for wrong in (0.0, -case.temperature, math.inf, math.nan):
        with pytest.raises(InputError):
            checks.check_temperature(wrong)
    assert checks.as_scale(None, x) is None
    scale = case.rng.uniform(0.1, 9, size=IMAGE[-1:])
    assert checks.as_scale(scale, x).dtype == jnp.float32
    close(checks.as_scale(scale, x), scale)
    with pytest.raises(InputError, match="scale="):
        checks.as_scale(-scale, x)
    with pytest.raises(InputError, match="scale has shape"):
        checks.as_scale(np.ones(7), x)
