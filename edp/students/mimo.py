"""MIMO student: several images in, one prediction for each, in one forward pass."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from edp import losses
from edp.students.matching import matching_student
from edp.students.student import Student


class _Mimo(nn.Module):
    """Logits [M, B, K] of images [B, H, W, C], M images in each forward pass.

    In training, row i has image π_m(i) in its m-th place, with M random permutations π.
    The logits return in the order of the images, [repetitions * M, B, K]. In evaluation
    all M places hold the same image.

    Attributes:
      network: takes M images concatenated along the channels; has M heads.
      num_members: M.
      repetitions: number of independent draws of the permutations in training.
    """

    network: nn.Module
    num_members: int
    repetitions: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train:
            return self.network(jnp.tile(x, (1, 1, 1, self.num_members)), train=False)
        shape = (self.repetitions, self.num_members)
        keys = jax.random.split(self.make_rng("dropout"), shape)
        permute = jax.vmap(jax.vmap(lambda key: jax.random.permutation(key, len(x))))
        order = permute(keys)  # [R, M, B]
        places = [x[order[:, m].reshape(-1)] for m in range(self.num_members)]
        logits = self.network(jnp.concatenate(places, axis=-1), train=True)
        logits = logits.reshape(self.num_members, self.repetitions, len(x), -1)
        logits = jnp.swapaxes(logits, 0, 1)  # [R, M, B, K]
        inverse = jnp.argsort(order, axis=-1)
        logits = jnp.take_along_axis(logits, inverse[..., None], axis=2)
        return logits.reshape(-1, *logits.shape[2:])


class _Evaluated(NamedTuple):
    """A `_Mimo` with a cheaper evaluation, with the `init` and `apply` of Flax.

    A layer on M copies of an image equals a layer on the image with the sum of its M
    kernels, so that a prediction costs one pass of the plain network.

    Attributes:
      model: the network in training.
      plain: the same network for one image.
    """

    model: _Mimo
    plain: nn.Module

    def init(self, key: jax.Array, x: jax.Array, *, train: bool):
        return self.model.init(key, x, train=train)

    def apply(self, variables, x: jax.Array, *, train: bool, **options):
        if train:
            return self.model.apply(variables, x, train=True, **options)
        own = {name: tree["network"] for name, tree in variables.items()}
        init = functools.partial(self.plain.init, train=False)
        like = jax.eval_shape(init, jax.random.key(0), x[:1])
        add = functools.partial(_add_kernels, self.model.num_members, x.shape[-1])
        return self.plain.apply(jax.tree.map(add, own, like), x, train=False)


def _add_kernels(num_images: int, channels: int, leaf: jax.Array, like) -> jax.Array:
    """Sums a kernel [..., M * C, F] or [..., T * M * C, F] over the M images.

    Args:
      num_images: M.
      channels: C, of one image.
      leaf: a leaf of the network for M images.
      like: the same leaf of the network for one image; of a leaf that does not depend
        on M, it has the same shape.
    """
    if leaf.shape == like.shape:
        return leaf
    apart = (*leaf.shape[:-2], -1, num_images, channels, leaf.shape[-1])
    return leaf.reshape(apart).sum(axis=-3).reshape(like.shape)


def mimo(
    build_model: Callable,
    *,
    num_members: int,
    alpha: float,
    temperature: float,
    mimo_repetitions: int,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a network that reads M images at once; head m matches member m.

    (Havasi et al., *Training independent subnetworks for robust prediction*, ICLR 2021,
    arXiv 2010.06610.) M images are concatenated along the channels. In training, each
    head sees an image of its own and learns the logits of its member on it. At test
    time one image is repeated M times, so that M predictions cost one forward pass.

    Args:
      build_model: builds a network with M heads for M images.
      num_members: M.
      alpha: weight of the distillation term; see `matching_student`.
      temperature: τ.
      mimo_repetitions: times that each image is shown to each head in a step, beside
        other images (batch repetition, section 3.2 of the paper); multiplies the cost
        of training.
      label_smoothing: see `losses.cross_entropy`.
    """
    network = build_model(num_heads=num_members, num_images=num_members)
    model = _Evaluated(
        _Mimo(network, num_members, mimo_repetitions),
        build_model(num_heads=num_members),
    )

    def targets(teacher_logits, temperature):
        members = losses.log_probs(teacher_logits, temperature)
        return jnp.tile(members, (mimo_repetitions, 1, 1))

    student = matching_student(
        model,
        num_members,
        targets,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )
    return student._replace(inference_cost=1.0)
