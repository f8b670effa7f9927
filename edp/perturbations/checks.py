"""Checks of the inputs, members, `clip`, `scale` and temperature of a perturbation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from edp import losses
from edp.errors import InputError

# Lowest and highest valid input, each a number or one per channel [C]; None: no limit.
Clip = tuple[ArrayLike, ArrayLike] | None

# How far outside `clip` an input may lie, as a fraction of the range.
_TOLERANCE = 1e-3


def check_input(x: jax.Array, clip: Clip) -> None:
    """Raises InputError for inputs that no small perturbation can be added to.

    Inside a transformation such as `jit` the values of x are not known and only the
    dtype is checked. Call a perturbation once outside `jit` to check real data.

    Args:
      x: inputs [B, ...].
      clip: range of valid inputs, or None.

    Raises:
      InputError: x is not floating-point: an integer image would come back as 0 and
        1. Or x has values outside `clip` by more than 1e-3 of its range or one
        rounding step of its dtype: clipping would change them by far more than
        `step_size`.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x has dtype {x.dtype}; accepted: floating-point inputs, such as "
            "pixels / 255 in float32"
        )
    if clip is None or _is_traced(x, *clip):
        return
    low, high = (np.asarray(bound) for bound in clip)
    tolerance = max(_TOLERANCE, float(jnp.finfo(x.dtype).eps)) * (high - low)
    with jax.ensure_compile_time_eval():  # x may be a constant of a traced function
        if ((x < low - tolerance) | (x > high + tolerance)).any():
            raise InputError(
                f"x has values from {float(x.min()):.4g} to {float(x.max()):.4g}, "
                f"outside clip=({low}, {high}); accepted: inputs within clip, or a "
                "clip (None: no limit) and a scale in the units of x"
            )


def check_temperature(temperature: float | jax.Array) -> None:
    """Raises InputError for a known temperature that is not positive and finite.

    At 0 and at infinity every gradient would be zero or not finite, so that no input
    would change.
    """
    if not _is_traced(temperature) and not 0 < temperature < np.inf:
        raise InputError(
            f"temperature={temperature} is out of range; accepted: positive, finite "
            "numbers"
        )


def check_members(logits: jax.Array) -> None:
    """Raises InputError for the logits [M, B, K] of one member, or of one class.

    The gradient of every measure of disagreement would be zero.
    """
    chex.assert_rank(logits, 3)
    losses.check_classes(logits)
    if len(logits) < 2:
        raise InputError(
            f"logits_fn returns logits of shape {logits.shape}; accepted: [M, B, K] of "
            "at least 2 members"
        )


def as_scale(scale: ArrayLike | None, x: jax.Array) -> jax.Array | None:
    """Returns `scale` as an array [] or [C] in float32 or better; None stays None.

    Args:
      scale: one number, or one per channel [C]; see `edp.perturbations.geometry`.
      x: inputs [B, ..., C].

    Raises:
      InputError: for another shape, or values that are not positive and finite
        (these are checked outside `jit` only).
    """
    if scale is None:
        return None
    if np.shape(scale) not in ((), x.shape[-1:]):
        raise InputError(
            f"scale has shape {np.shape(scale)}; accepted: one number, or one per "
            f"channel {x.shape[-1:]}"
        )
    if not _is_traced(scale):
        values = np.asarray(scale)
        if not ((values > 0) & np.isfinite(values)).all():
            raise InputError(
                f"scale={values.tolist()} is out of range; accepted: positive, finite "
                "numbers"
            )
    return jnp.asarray(scale, jnp.promote_types(x.dtype, jnp.float32))


def _is_traced(*values) -> bool:
    return any(isinstance(value, jax.core.Tracer) for value in values)
