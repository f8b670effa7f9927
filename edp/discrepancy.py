"""How far apart two samples are: the maximum mean discrepancy."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def maximum_mean_discrepancy(
    a: jax.Array, b: jax.Array, widths: Sequence[float] = (2.0, 10.0, 20.0, 50.0)
) -> jax.Array:
    """⟨k(a, a')⟩ + ⟨k(b, b')⟩ − 2 ⟨k(a, b)⟩, means over all pairs of rows.

    (The biased estimate of the squared discrepancy, of Gretton et al., *A Kernel
    Two-Sample Test*, 2012, eq. 5: never below 0, and 0 where the rows are the same.)
    k(x, y) = Σ_s exp(−‖x − y‖² / (2 s)).

    Args:
      a: [N, D].
      b: [N', D].
      widths: s.

    Returns:
      [], in float32 or better.
    """
    a, b = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (a, b))

    def mean_kernel(a, b):
        distance = jnp.square(a[:, None] - b[None]).sum(axis=-1)
        return sum(jnp.exp(-distance / (2 * s)) for s in widths).mean()

    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)
