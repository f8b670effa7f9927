"""Packed student: M narrow networks, each matching one teacher."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from edp import losses, models
from edp.errors import InputError
from edp.models import native
from edp.runtime import stacking
from edp.students.matching import matching_student
from edp.students.student import Student


class _Packed(NamedTuple):
    """M networks of one architecture as one, with the `init` and `apply` of Flax.

    Attributes:
      network: the network of one member.
      num_members: M, the leading axis of the variables.
    """

    network: Any
    num_members: int

    def init(self, key: jax.Array, x: jax.Array, *, train: bool):
        keys = jax.random.split(key, self.num_members)
        return jax.vmap(lambda key: self.network.init(key, x, train=train))(keys)

    def apply(self, variables, x, *, train: bool, mutable=False, rngs=None):
        keys = jax.tree.map(lambda key: jax.random.split(key, self.num_members), rngs)
        stacked = variables, keys or {}

        def of_member(variables, rngs):
            return self.network.apply(
                variables, x, train=train, mutable=mutable, rngs=rngs
            )

        one_by_one = stacking.member_map(of_member, (0, 0))
        size = native.INTERLEAVED
        if not _is_interleaved(self.network, variables, x):
            return one_by_one(*stacked)
        network = self.network.clone(interleaved=size)
        results = []
        for first in range(0, self.num_members, size):
            own = slice(first, first + size)
            group, rngs = jax.tree.map(lambda leaf, own=own: leaf[own], stacked)
            if first + size <= self.num_members:
                result = network.apply(group, x, train=train, mutable=mutable)
            else:
                result = one_by_one(group, rngs)
            results.append(result)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *results)


def _is_interleaved(network, variables, x: jax.Array) -> bool:
    """Returns whether the native kernels compute `native.INTERLEAVED` members at once.

    Args:
      network: of one member.
      variables: of all members, stacked.
      x: [B, H, W, C].
    """
    size = native.INTERLEAVED
    if not (
        isinstance(network, models.Classifier)
        # Not of a subclass, which may mix the channels.
        and vars(type(network)).get("takes_interleaved", False)
        and network.dropout_rate == 0
        and network.num_members is None
        and network.num_heads is None
    ):
        return False
    like = jax.ShapeDtypeStruct(x.shape, network.dtype)
    strides = getattr(network, "stem_strides", 1)  # the largest others are 2
    leaves = jax.tree.leaves(variables["params"])
    kernels = [leaf.shape for leaf in leaves if leaf.ndim == 5]
    return all(
        num_members >= size
        and native.takes_convolution(like, shape, strides, interleaved=size)
        for num_members, *shape in kernels
    )


def packed(
    build_model: Callable,
    *,
    num_members: int,
    alpha: float,
    temperature: float,
    packed_alpha: float,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates M networks of a fraction of the width; network m matches member m.

    (Laurent et al., *Packed-Ensembles for Efficient Uncertainty Estimation*, ICLR 2023,
    arXiv 2210.09184.) Every layer has α/M of the plain network's channels, α being
    `packed_alpha`, so that all M together have about α²/M of its multiplications. This
    is the grouped convolution of the paper with γ = 1. On CPUs, where XLA's grouped
    convolutions are slow, edp's own kernels compute four networks at once
    (`edp.models.interleaved`); other networks are computed one after another.

    Args:
      build_model: builds a network whose width is multiplied by `width_factor`.
      num_members: M.
      alpha: weight of the distillation term; see `matching_student`.
      temperature: τ.
      packed_alpha: α of the paper; widths are rounded to whole channels.
      label_smoothing: see `losses.cross_entropy`.

    `init` raises an InputError where α/M below 1 makes the network no smaller, as of a
    network of one's own that ignores `width_factor`.
    """
    factor = packed_alpha / num_members
    plain, narrow = build_model(), build_model(width_factor=factor)
    student = matching_student(
        _Packed(narrow, num_members),
        num_members,
        losses.log_probs,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )

    def init(key, x):
        whole, part = (_num_params(model, key, x) for model in (plain, narrow))
        if factor < 1 and part >= whole:
            raise InputError(
                f"packed_alpha={packed_alpha} with {num_members} members leaves a "
                f"network of {whole} parameters at {part}; accepted: a network that "
                "multiplies its channels by width_factor, wide enough for that"
            )
        return student.init(key, x)

    return student._replace(init=init, inference_cost=packed_alpha**2 / num_members)


def _num_params(model, key: jax.Array, x: jax.Array) -> int:
    shapes = jax.eval_shape(lambda: model.init(key, x, train=False))
    return models.count_params(shapes["params"])
