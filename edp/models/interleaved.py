"""Layers of M networks whose channels alternate in one array.

Channel c·M + m of an array [N, H, W, C·M] is channel c of member m. All that is done to
each channel alike is then done to all members at once, and vectors of a CPU are full
where each member by itself has fewer channels than they have floats. Parameters have a
leading member axis, as those of stacked networks have; they are read, not initialised.
"""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.models import native


class Conv(nn.Module):
    """`layers.Conv` for M members, by the native kernels.

    Called on [N, H, W, C·M], or on images that all members share [N, H, W, C]; returns
    [N, H', W', F·M].

    Attributes:
      features: number of output channels of a member, F.
      num_members: M, `native.INTERLEAVED`.
      kernel_size: height and width of the kernels [M, kernel_size, kernel_size, C, F].
      strides: stride along both H and W.
    """

    features: int
    num_members: int
    kernel_size: int = 3
    strides: int = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        kernels: jax.Array = self.get_variable("params", "kernel")
        size = (self.kernel_size, self.kernel_size)
        chex.assert_shape(kernels, (self.num_members, *size, None, self.features))
        if x.shape[-1] == kernels.shape[3]:
            kernels = jnp.moveaxis(kernels, 0, -1)
            kernels = kernels.reshape(1, *kernels.shape[:3], -1)
        return native.convolve(x, kernels, self.strides)


class Dense(nn.Module):
    """`layers.Dense` for M members: [N, C·M] -> [M, N, features].

    Attributes:
      features: number of outputs of a member.
      num_members: M.
    """

    features: int
    num_members: int

    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_rank(x, 2)
        x = jnp.moveaxis(x.reshape(x.shape[0], -1, self.num_members), -1, 0)
        kernel: jax.Array = self.get_variable("params", "kernel")
        chex.assert_shape(kernel, (self.num_members, x.shape[-1], self.features))
        return jnp.matmul(x, kernel) + self.get_variable("params", "bias")[:, None]
