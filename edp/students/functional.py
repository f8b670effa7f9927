"""Functional student: each value of a random input selects another function."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp import losses
from edp.errors import InputError
from edp.models.classifier import fold, unfold
from edp.students import forward
from edp.students.student import Student


class _Functions(nn.Module):
    """Logits [S, B, K] of inputs x [B, H, W, C] and samples z [S, H, W, 1].

    z times a learned scale is an extra channel of the input.
    """

    network: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array, train: bool) -> jax.Array:
        z = z * self.param("noise_scale", nn.initializers.ones, ())
        x = jnp.concatenate(
            [fold(x, len(z)), jnp.tile(z, (x.shape[0], 1, 1, 1))], axis=-1
        )
        return unfold(self.network(x, train=train), len(z))


def functional(
    build_model: Callable,
    *,
    num_members: int,
    functional_sigma: float,
    functional_samples: int,
    functional_teachers: int | None,
    functional_inference_samples: int,
) -> Student:
    """Creates a student whose functions g(·, z) match the distribution of the members.

    (FED; Penso, Achituve, Fetaya, *Functional Ensemble Distillation*, NeurIPS 2022,
    arXiv 2206.02183.) A function is represented by its probabilities on the whole
    batch, a vector of B K numbers. The loss is the maximum mean discrepancy between
    those of the members and those of samples z ~ N(0, σ²), each one image for the
    whole batch. In training, batch normalisation pools the rows of all samples. There
    is no label term and only the perturbed input is used.

    Args:
      build_model: builds a network with one extra input channel.
      num_members: M of the teachers.
      functional_sigma: σ.
      functional_samples: samples of z per step.
      functional_teachers: members sampled per step; None: all.
      functional_inference_samples: fixed samples of z that make the prediction; each
        costs a forward pass.

    Raises:
      InputError: for a `functional_teachers` outside 1..M.
    """
    teachers = num_members if functional_teachers is None else functional_teachers
    if not 1 <= teachers <= num_members:
        raise InputError(
            f"functional_teachers={teachers} is out of range; accepted: 1 to "
            f"{num_members} (the number of teachers), or None for all of them"
        )
    model = _Functions(build_model(extra_channels=1))

    def sample(key, number, x):
        return functional_sigma * jax.random.normal(key, (number, *x.shape[1:3], 1))

    def init(key, x):
        return model.init(key, x, sample(key, 1, x), train=False)

    def loss(variables, batch, key):
        chex.assert_axis_dimension(batch.teacher_logits, 0, num_members)
        image = batch.image if batch.perturbed is None else batch.perturbed
        sample_key, teachers_key, key = jax.random.split(key, 3)
        z = sample(sample_key, functional_samples, image)
        logits, variables = forward.forward(model, variables, image, z, key=key)
        members = jax.random.permutation(teachers_key, num_members)[:teachers]
        functions = [
            jnp.exp(losses.log_probs(x)).reshape(len(x), -1)
            for x in (batch.teacher_logits[members], logits)
        ]
        total = losses.maximum_mean_discrepancy(*functions)
        accuracy = forward.accuracy(logits, batch.label).mean(axis=0)
        aux = forward.model_state(variables), {"accuracy": accuracy}
        return jnp.full(len(image), total), aux

    def probs(variables, x):
        # A constant, so that an exported program draws no random numbers.
        with jax.ensure_compile_time_eval():
            z = sample(jax.random.key(0), functional_inference_samples, x)
        return jnp.exp(losses.log_probs(model.apply(variables, x, z, train=False)))

    predict, uncertainty = forward.predictors(probs)
    return Student(
        num_members=functional_inference_samples,
        inference_cost=float(functional_inference_samples),
        init=init,
        loss=loss,
        finalise=lambda variables: variables,
        predict=predict,
        uncertainty=uncertainty,
    )
