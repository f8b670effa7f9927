"""Runs networks compiled: each operation alone would be compiled for itself."""

from functools import partial

import jax


@partial(jax.jit, static_argnums=0)
def init(model, key, x):
    """Returns the variables of a network for evaluation on images like x [B, ...]."""
    return model.init(key, x, train=False)


@partial(jax.jit, static_argnums=0)
def logits(model, variables, x, rngs=None):
    """Returns a network's logits [..., B, K] in evaluation."""
    return model.apply(variables, x, train=False, rngs=rngs)


@partial(jax.jit, static_argnums=0)
def train_pass(model, variables, x):
    """Returns a network's logits in training, and its new batch statistics."""
    return model.apply(variables, x, train=True, mutable=["batch_stats"])
