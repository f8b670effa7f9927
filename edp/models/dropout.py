"""Dropout with masks that can be fixed by a key."""

import jax
from flax import linen as nn


class Dropout(nn.Module):
    """Sets features to 0 at random and scales the others up (Srivastava et al., 2014).

    In training, each input of a batch has its own mask. In evaluation nothing is
    dropped, unless the call has a `dropout` stream: then one mask is sampled for all
    inputs, so the key makes the network a deterministic function.

    Attributes:
      rate: fraction of features to drop, from 0 to below 1. At 0 nothing is sampled.
      train: training mode or evaluation mode.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        active = self.rate > 0 and (self.train or self.has_rng("dropout"))
        shared = () if self.train else (0,)
        return nn.Dropout(self.rate, shared, deterministic=not active, name="masked")(x)
