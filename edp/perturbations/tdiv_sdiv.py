"""Where two teachers differ and the two students that learn from them do not."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from edp.perturbations import geometry, objectives

Pairs = tuple[jax.Array, jax.Array | None]


def tdiv_sdiv(
    key: jax.Array,
    logits_fn: Callable[[jax.Array], Pairs],
    x: jax.Array,
    *,
    step_size: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> jax.Array:
    """Raises the diversity of a pair of teachers above that of their students.

    One step η√D along the normalised gradient of H(sg p_j, p_i) − H(sg q_j, q_i), p_i
    and p_j the (untempered) probabilities of two teachers, q_i and q_j those of the
    two subnetworks of the student that learn from them, H the cross-entropy
    (TDiv-SDiv; Nam et al., ICML 2022, arXiv 2206.15047). A student of one network
    has no diversity: then it is the teachers' alone.

    Args:
      key: ignored; the pair is drawn by who makes `logits_fn`.
      logits_fn: x [B, ...] -> logits [2, B, K] of members (i, j) of the teachers,
        and those of the student in evaluation mode, or None if it has no such members.
      x: inputs [B, ...].
      step_size: η, in pixel units of [0, 1]; the move has L2 length η√D, where D is
        the number of elements of one input.
      clip: range of valid inputs, or None.

    Returns:
      x̃ with the shape and dtype of x; no gradient flows into it. An input whose
      gradient is zero or not finite stays as it is.
    """
    del key
    logits, pull_back = jax.vjp(logits_fn, x)
    (gradient,) = pull_back(_cotangents(*logits))
    moved = x + geometry.radius(x, step_size) * geometry.unit(gradient)
    return geometry.settle(moved, x, clip)


def _cotangents(teachers: jax.Array, students: jax.Array | None) -> Pairs:
    """The gradients with respect to both logits, up to one factor per example.

    dH(sg p_j, p_i) / dz_i = p_i − p_j; nothing flows to member j, which is held.
    """
    chex.assert_axis_dimension(teachers, 0, 2)
    of_teachers, scale = objectives.difference_of_two(teachers)
    if students is None:
        return _held(of_teachers, teachers), None
    chex.assert_axis_dimension(students, 0, 2)
    of_students, student_scale = objectives.difference_of_two(students)
    # Both come without a factor of their own, lest they underflow: one for both.
    common = jnp.maximum(scale, student_scale)
    of_teachers = of_teachers * jnp.exp(scale - common)
    of_students = of_students * jnp.exp(student_scale - common)
    return _held(of_teachers, teachers), _held(-of_students, students)


def _held(of_first: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.stack([of_first, jnp.zeros_like(of_first)]).astype(logits.dtype)
