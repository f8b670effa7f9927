"""Moves of a given length in input space."""

import math

import jax
import jax.numpy as jnp


def radius(x: jax.Array, step_size: float) -> float:
    """The L2 length of a step of `step_size` in every element: η√D.

    Args:
      x: inputs [B, ...]; D is the number of elements of one of them.
      step_size: η, in the units of x (pixels in [0, 1]; the paper uses 1/255).
    """
    return step_size * math.sqrt(math.prod(x.shape[1:]))


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
    """Reshapes [B] to broadcast against `like` [B, ...]."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def unit(direction: jax.Array) -> jax.Array:
    """Scales each example of `direction` [B, ...] to L2 length 1.

    A direction that is zero or not finite gives zero. The largest magnitude is
    divided out first, so that tiny and huge gradients neither underflow nor
    overflow when squared.
    """
    direction = direction.astype(jnp.promote_types(direction.dtype, jnp.float32))
    axes = tuple(range(1, direction.ndim))
    largest = jnp.abs(direction).max(axis=axes, keepdims=True)
    usable = (largest > 0) & jnp.isfinite(largest)
    scaled = jnp.where(usable, direction, 0) / jnp.where(usable, largest, 1)
    length = jnp.sqrt(jnp.square(scaled).sum(axis=axes, keepdims=True))
    return scaled / jnp.where(usable, length, 1)


def within_ball(moved: jax.Array, x: jax.Array, length: float) -> jax.Array:
    """Projects each `moved` [B, ...] onto the L2 ball of radius `length` round x."""
    offset = moved - x
    axes = tuple(range(1, x.ndim))
    size = jnp.sqrt(jnp.square(offset).sum(axis=axes, keepdims=True))
    outside = size > length
    return jnp.where(
        outside, x + offset * (length / jnp.where(outside, size, 1)), moved
    )


def settle(
    moved: jax.Array, x: jax.Array, clip: tuple[float, float] | None
) -> jax.Array:
    """Ends a move: inside `clip`, in x's dtype, and a constant to gradients.

    Clipping only brings an element nearer to x (which lies inside `clip`), so it
    never leaves the ball.
    """
    if clip is not None:
        moved = jnp.clip(moved, *clip)
    return jax.lax.stop_gradient(moved.astype(x.dtype))
