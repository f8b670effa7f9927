"""Small network on the features of a frozen one, for diffusion and flow students."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

# Frequencies of the embedding of time, in half periods of [0, 1].
_FREQUENCIES = 8


class ScoreNetwork(nn.Module):
    """Maps noisy logits, features and time to K numbers; residual blocks with FiLM.

    Each block is x + Dense(silu((1 + a) LayerNorm(x) + b)), with a and b linear in a
    code of features and time (Perez et al., 2018, arXiv 1709.07871). Initially the
    outputs are small, but not zero, so that every layer learns from the first step.

    Attributes:
      width: number of features of a block.
      num_blocks: number of blocks.
    """

    width: int
    num_blocks: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, features: jax.Array, time: jax.Array) -> jax.Array:
        """Computes the outputs.

        Args:
          x: [S, B, K].
          features: [B, F].
          time: in [0, 1], [B] or [1].

        Returns:
          [S, B, K].
        """
        dense = nn.Dense
        angles = math.pi * time[:, None] * jnp.arange(1.0, _FREQUENCIES + 1)[None]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        code = dense(self.width, name="features")(nn.LayerNorm()(features))
        code = nn.silu(code + dense(self.width, name="time")(waves))
        y = dense(self.width, name="inputs")(x)
        for i in range(1, self.num_blocks + 1):
            film = dense(2 * self.width, name=f"film{i}")(code)[None]
            scale, shift = jnp.split(film, 2, axis=-1)
            normal = nn.LayerNorm(use_bias=False, use_scale=False)(y)
            y = y + dense(self.width, name=f"block{i}")(
                nn.silu(normal * (1 + scale) + shift)
            )
        small = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
        return dense(x.shape[-1], kernel_init=small, name="outputs")(y)
