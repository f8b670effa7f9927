"""TDiv-SDiv: raises the diversity of two teachers above that of their two students."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from edp import losses
from edp.perturbations import checks, geometry, objectives

Pairs = tuple[jax.Array, jax.Array | None]


def tdiv_sdiv(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], Pairs],
    x: jax.Array,
    *,
    step_size: float,
    clip: checks.Clip = (0.0, 1.0),
    scale: ArrayLike | None = None,
) -> jax.Array:
    """Raises the diversity of a pair of teachers above that of their students.

    One step of length η√D along the normalised gradient of H(sg p_j, p_i) −
    H(sg q_j, q_i). p_i and p_j are the (untempered) probabilities of two teachers, q_i
    and q_j those of the two student members that match them; H is the cross-entropy,
    sg stops the gradient (Nam et al., ICML 2022, arXiv 2206.15047). A student that is
    one network has no diversity: only the teachers' term remains.

    Args:
      key: ignored; `logits_fn` fixes the pair.
      logits_fn: x [B, ...] -> logits [2, B, K] of members (i, j) of the teachers,
        and those of the student in evaluation mode, or None if it has no such members.
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the step has L2 length η√D, where D is
        the number of elements of one input.
      clip: range of valid inputs in the units of x, or None.
      scale: units of x per unit of pixels, a number or [C]; None is 1. See `ods`.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input whose
      gradient is zero or not finite stays unchanged.

    Raises:
      InputError: for logits of one class; see also `checks.check_input` and
        `checks.as_scale`.
    """
    del key
    checks.check_input(x, clip)
    scale = checks.as_scale(scale, x)
    logits, pull_back = jax.vjp(logits_fn, x)
    (gradient,) = pull_back(_cotangents(*logits))
    length = geometry.radius(x, step_size)
    step = geometry.ascent_step(gradient, length, scale)
    return geometry.clip_and_detach(x + step, x, clip)


def _cotangents(teachers: jax.Array, students: jax.Array | None) -> Pairs:
    """Computes the gradients with respect to both logits, up to a factor per example.

    dH(sg p_j, p_i) / dz_i = p_i − p_j; member j is held fixed and gets zero.
    """
    chex.assert_axis_dimension(teachers, 0, 2)
    losses.check_classes(teachers)
    teacher_difference, log_scale = objectives.difference_of_two(teachers)
    if students is None:
        return _hold_second(teacher_difference, teachers), None
    chex.assert_axis_dimension(students, 0, 2)
    student_difference, student_log_scale = objectives.difference_of_two(students)
    # Each difference comes without its factor, which may underflow: use a common one.
    common = jnp.maximum(log_scale, student_log_scale)
    teacher_difference = teacher_difference * jnp.exp(log_scale - common)
    student_difference = student_difference * jnp.exp(student_log_scale - common)
    return (
        _hold_second(teacher_difference, teachers),
        _hold_second(-student_difference, students),
    )


def _hold_second(first: jax.Array, logits: jax.Array) -> jax.Array:
    """Stacks the cotangent [B, K] of the first member with zero for the second."""
    return jnp.stack([first, jnp.zeros_like(first)]).astype(logits.dtype)
