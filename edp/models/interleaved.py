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
from edp.models.layers import kernel_init


class Conv(nn.Module):
    """`layers.Conv` for M members, by the native kernels: [N, H, W, C·M].

    Attributes:
      features: number of output channels of a member, F; the result has F·M.
      num_members: M, `native.INTERLEAVED`.
      kernel_size: height and width of the kernels [M, kernel_size, kernel_size, C, F].
      strides: stride along both H and W.
    """

    features: int
    num_members: int
    kernel_size: int = 3
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_rank(x, 4)
        channels = x.shape[-1] // self.num_members
        size = (self.kernel_size, self.kernel_size, channels, self.features)
        kernels = self.param(
            "kernel", kernel_init, (self.num_members, *size), jnp.float32
        )
        return native.convolve(x, kernels, self.strides)


class Dense(nn.Module):
    """`layers.Dense` for M members: [N, C·M] -> [M, N, features].

    Attributes:
      features: number of outputs of a member.
      num_members: M.
    """

    features: int
    num_members: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_rank(x, 2)
        x = jnp.moveaxis(x.reshape(x.shape[0], -1, self.num_members), -1, 0)
        shape = (self.num_members, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, (self.num_members, self.features), jnp.float32)
        return jnp.matmul(x, kernel) + bias[:, None]
