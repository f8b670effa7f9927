"""Steps of a given length in input space.

Lengths are in pixel units of [0, 1]. Inputs in other units, x = scale · pixels +
offset per channel, pass `scale` (1 / std where x is normalised by a mean and a std):
gradients, lengths and distances are then those of the pixels.
"""

import math

import jax
import jax.numpy as jnp

from edp.perturbations.checks import Clip


def radius(x: jax.Array, step_size: float) -> float:
    """Returns the L2 length of a step of `step_size` in every element: η√D.

    Args:
      x: inputs [B, ...]; D is the number of elements of one input.
      step_size: η, in pixel units of [0, 1]; the paper uses 1/255.
    """
    return step_size * math.sqrt(math.prod(x.shape[1:]))


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    """Reshapes [B] to broadcast against `like` [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def unit(direction: jax.Array) -> jax.Array:
    """Scales each example of `direction` [B, ...] to L2 length 1.

    A direction that is zero or not finite gives zero. The largest magnitude is
    divided out first, so tiny and huge gradients neither underflow nor overflow when
    squared.
    """
    direction = direction.astype(jnp.promote_types(direction.dtype, jnp.float32))
    axes = tuple(range(1, direction.ndim))
    largest = jnp.abs(direction).max(axis=axes, keepdims=True)
    usable = (largest > 0) & jnp.isfinite(largest)
    scaled = jnp.where(usable, direction, 0) / jnp.where(usable, largest, 1)
    length = jnp.sqrt(jnp.square(scaled).sum(axis=axes, keepdims=True))
    return scaled / jnp.where(usable, length, 1)


def ascent_step(
    gradient: jax.Array, length: float | jax.Array, scale: jax.Array | None
) -> jax.Array:
    """Computes the step of an L2 `length` in pixels along a gradient.

    Args:
      gradient: gradient with respect to the inputs [B, ...].
      length: a number, or one per example [B, 1, ...].
      scale: [] or [C], from `checks.as_scale`; None is 1.

    Returns:
      The step [B, ...] in the units of the inputs; zero where the gradient is zero
      or not finite.
    """
    if scale is None:
        return length * unit(gradient)
    # d/d pixels = scale · d/dx, and a step in pixels is scale times as long in x.
    return scale * (length * unit(gradient * scale))


def within_ball(
    perturbed: jax.Array, x: jax.Array, length: float, scale: jax.Array | None = None
) -> jax.Array:
    """Projects `perturbed` [B, ...] onto the L2 ball of radius `length` around x.

    The radius is in pixels; see `ascent_step` for `scale`.
    """
    offset = perturbed - x
    axes = tuple(range(1, x.ndim))
    pixels = offset if scale is None else offset / scale
    distance = jnp.sqrt(jnp.square(pixels).sum(axis=axes, keepdims=True))
    outside = distance > length
    return jnp.where(
        outside, x + offset * (length / jnp.where(outside, distance, 1)), perturbed
    )


def clip_and_detach(perturbed: jax.Array, x: jax.Array, clip: Clip) -> jax.Array:
    """Returns `perturbed` clipped, in the dtype of x, with its gradient stopped.

    Clipping only brings an element nearer to x (which lies inside `clip`), so the
    result stays in the ball.
    """
    if clip is not None:
        lower, upper = (jnp.asarray(bound, perturbed.dtype) for bound in clip)
        perturbed = jnp.clip(perturbed, lower, upper)
    return jax.lax.stop_gradient(perturbed.astype(x.dtype))
