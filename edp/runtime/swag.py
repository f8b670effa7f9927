"""SWAG: moments of the weights over the last epochs of a training, and samples.

After Maddox, Garipov, Izmailov, Vetrov, Wilson, *A Simple Baseline for Bayesian
Uncertainty in Deep Learning*, NeurIPS 2019, arXiv 1902.02476.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edp.runtime.best_epoch import Best, Selection
from edp.runtime.stacking import select, stack
from edp.runtime.state import split_variables


class Moments(NamedTuple):
    """Moments of the weights of N networks after each epoch collected.

    Attributes:
      mean: of the parameters, every leaf [N, ...].
      variance: of each parameter, the population's, [N, ...].
      deviations: of the last K epochs from the mean until then, [N, K, ...].
      model_state: the other variables after the last epoch, [N, ...].
    """

    mean: Any
    variance: Any
    deviations: Any
    model_state: Any


def collect(first_epoch: int, rank: int) -> Selection:
    """Collects `Moments` after each epoch, in place of selecting one.

    They are in the checkpoints of `loop.fit`, as the selected variables would be.

    Args:
      first_epoch: the first epoch collected, from 1.
      rank: K, deviations kept.
    """

    def begin(variables):
        return Best(_no_moments(variables, rank), np.asarray(-np.inf), np.asarray(0))

    def update(best, variables, epoch):
        if epoch < first_epoch:
            return best, {}
        moments = _add(best.variables, variables, int(best.epochs))
        return Best(moments, np.asarray(float(epoch)), best.epochs + 1), {}

    return Selection(
        begin, update, lambda best: {"collected_epochs": best.epochs.tolist()}
    )


@functools.partial(jax.jit, static_argnums=1)
def _no_moments(variables, rank):
    params, model_state = split_variables(variables)
    zeros = jax.tree.map(jnp.zeros_like, params)
    columns = jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0], rank, *leaf.shape[1:]), leaf.dtype),
        params,
    )
    return Moments(
        zeros,
        jax.tree.map(jnp.copy, zeros),
        columns,
        jax.tree.map(jnp.copy, model_state),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _add(moments, variables, count):
    """Adds weights to the moments of `count` epochs, by Welford's updates."""
    params, model_state = split_variables(variables)
    before, share = count / (count + 1), 1 / (count + 1)
    mean = jax.tree.map(lambda m, w: before * m + share * w, moments.mean, params)

    def variance_of(variance, w, old, new):
        return before * variance + share * (w - old) * (w - new)

    def with_column(columns, w, new):
        return columns.at[:, count % columns.shape[1]].set(w - new)

    return Moments(
        mean,
        jax.tree.map(variance_of, moments.variance, params, moments.mean, mean),
        jax.tree.map(with_column, moments.deviations, params, mean),
        jax.tree.map(jnp.copy, model_state),
    )


def sample(
    moments: Moments, diagonal_noise: Any, low_rank_noise: jax.Array, scale: float
) -> Any:
    """Computes weights from the moments of one network and given noise.

    θ = mean + s (Σ^(1/2) z₁ / √2 + D z₂ / √(2 (K − 1))), where Σ is the diagonal of
    variances and D has the K deviations as columns (arXiv 1902.02476, section 3.3;
    s = 1 there, and s = 0 is the mean, SWA).

    Args:
      moments: of one network, not stacked.
      diagonal_noise: z₁, a tree like the parameters.
      low_rank_noise: z₂ [K], shared by all parameters; K is at least 2.
      scale: s.

    Returns:
      The parameters.
    """
    rank = low_rank_noise.shape[0]

    def leaf(mean, variance, deviations, z):
        diagonal = jnp.sqrt(jnp.maximum(variance, 0) / 2) * z
        low_rank = jnp.tensordot(low_rank_noise, deviations, 1)
        low_rank /= math.sqrt(2 * (rank - 1))
        return (mean + scale * (diagonal + low_rank)).astype(mean.dtype)

    return jax.tree.map(
        leaf, moments.mean, moments.variance, moments.deviations, diagonal_noise
    )


def draw(moments: Moments, key: jax.Array, num_samples: int, scale: float) -> Any:
    """Draws variables of M networks, stacked; sample m is of network m modulo N.

    The statistics of batch normalisation among them are those of the last epoch, not
    of the samples.

    Args:
      moments: of N networks.
      key: PRNG key.
      num_samples: M.
      scale: see `sample`.
    """
    num_networks = jax.tree.leaves(moments.mean)[0].shape[0]
    rank = jax.tree.leaves(moments.deviations)[0].shape[1]

    @jax.jit  # once for all samples
    def one(moments, network, key):
        own = select(moments, network)
        leaves, structure = jax.tree.flatten(own.mean)
        keys = jax.random.split(key, len(leaves) + 1)
        noise = [
            jax.random.normal(k, w.shape) for k, w in zip(keys, leaves, strict=False)
        ]
        params = sample(
            own,
            jax.tree.unflatten(structure, noise),
            jax.random.normal(keys[-1], (rank,)),
            scale,
        )
        return {"params": params, **own.model_state}

    keys = jax.random.split(key, num_samples)
    samples = [one(moments, m % num_networks, keys[m]) for m in range(num_samples)]
    return jax.jit(stack)(samples)
