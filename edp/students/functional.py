"""A network with a random input, each value of which makes it another function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from edp import losses
from edp.errors import InputError
from edp.models.classifier import fold, unfold
from edp.students import forward
from edp.students.student import Student


class _Functions(nn.Module):
    """Logits [S, B, K] of inputs x [B, H, W, C] and draws z [S, H, W, 1].

    z, times a scale that is learned, is a channel of the input.
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
    """Draws functions g(·, z) as alike the members as the batch can tell.

    (FED; Penso, Achituve, Fetaya, *Functional Ensemble Distillation*, NeurIPS 2022,
    arXiv 2206.02183.) A function is its probabilities on the whole batch, a vector of
    B K; the loss is the maximum mean discrepancy between those of
    `functional_teachers` members, drawn anew for each step (None: all), and of
    `functional_samples` draws of z ~ N(0, σ²), each one image for the whole batch.
    In training, batch normalisation takes the rows of all the draws together.

    `functional_inference_samples` draws, always the same, make the prediction; each
    costs a forward pass. There is no label term: of two inputs it sees the perturbed
    one alone.

    Raises:
      InputError: for more teachers than there are.
    """
    drawn = num_members if functional_teachers is None else functional_teachers
    if not 1 <= drawn <= num_members:
        raise InputError(
            f"functional_teachers={drawn} must be from 1 to the number of teachers, "
            f"{num_members}, or None for all of them"
        )
    model = _Functions(build_model(extra_channels=1))

    def draw(key, number, x):
        return functional_sigma * jax.random.normal(key, (number, *x.shape[1:3], 1))

    def init(key, x):
        return model.init(key, x, draw(key, 1, x), train=False)

    def loss(variables, batch, key):
        image = batch.image if batch.perturbed is None else batch.perturbed
        draw_key, teachers_key, key = jax.random.split(key, 3)
        z = draw(draw_key, functional_samples, image)
        logits, variables = forward.forward(model, variables, image, z, key=key)
        members = jax.random.permutation(teachers_key, num_members)[:drawn]
        functions = [
            jnp.exp(losses.log_probs(x)).reshape(len(x), -1)
            for x in (batch.teacher_logits[members], logits)
        ]
        total = losses.maximum_mean_discrepancy(*functions)
        accuracy = forward.accuracy(logits, batch.label).mean(axis=0)
        aux = forward.model_state(variables), {"accuracy": accuracy}
        return jnp.full(len(image), total), aux

    def probs(variables, x):
        z = draw(jax.random.key(0), functional_inference_samples, x)
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
