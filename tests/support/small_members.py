"""Small random members of an ensemble, inputs, and comparisons of perturbations."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class FakeTeachers(NamedTuple):
    """A record like `edp.ensemble.Teachers`."""

    num_members: int
    all_logits: object
    member_logits: object


def mlp_members(num_members, margin=1.0, dim=12, num_classes=5, seed=0):
    """Returns random two-layer members whose class 0 logits are raised by `margin`.

    All agree on class 0 once the margin is large, as converged members do.
    """
    rng = np.random.default_rng(seed)
    w1 = jnp.asarray(
        rng.normal(size=(num_members, dim, 16)) / np.sqrt(dim), jnp.float32
    )
    w2 = jnp.asarray(rng.normal(size=(num_members, 16, num_classes)), jnp.float32)
    push = jnp.zeros(num_classes).at[0].set(margin)

    def logits_fn(x):
        flat = x.reshape(x.shape[0], -1)
        hidden = jnp.tanh(jnp.einsum("bd,mdh->mbh", flat, w1.astype(x.dtype)))
        return jnp.einsum("mbh,mhk->mbk", hidden, w2.astype(x.dtype)) + push

    return logits_fn


def inputs(batch=16, shape=(3, 4), seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0.3, 0.7, size=(batch, *shape)), jnp.float32)


def flat_norm(x):
    return np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)


def cosines(a, b):
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (a, b))
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
