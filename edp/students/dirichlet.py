"""Dirichlet student: its logits parametrise a Dirichlet distribution."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.students import dirichlet_math as distributions
from edp.students import forward
from edp.students.student import Student


class _Loss(NamedTuple):
    """A loss (z [B, K], teacher logits [M, B, K], T) -> [B], and z -> ln α at T = 1."""

    fn: Callable[..., jax.Array]
    log_alpha: Callable[[jax.Array], jax.Array]


LOSSES = {
    "mle": _Loss(distributions.negative_log_likelihood, distributions.bounded),
    "proxy": _Loss(
        lambda logits, teacher_logits, _: distributions.proxy_loss(
            logits, teacher_logits
        ),
        distributions.one_more,
    ),
}


def dirichlet(
    build_model: Callable,
    *,
    training_steps: int,
    dirichlet_loss: str,
    dirichlet_start_temperature: float,
    dirichlet_annealing: tuple[float, float],
) -> Student:
    """Creates a plain network that predicts a Dirichlet over the members' predictions.

    (EnD²; Malinin, Mlodozeniec, Gales, *Ensemble Distribution Distillation*, ICLR
    2020, arXiv 1905.00076.) There is no label term and only the perturbed input is
    used. The prediction is the mean of the Dirichlet.

    Args:
      build_model: builds a plain network.
      training_steps: number of training steps.
      dirichlet_loss: 'mle' maximises the likelihood of the members' probabilities.
        'proxy' minimises the divergence from the proxy target (Ryabinin et al.,
        NeurIPS 2021, arXiv 2105.06987) and uses no temperature.
      dirichlet_start_temperature: T at the start, for 'mle'.
      dirichlet_annealing: the two fractions of the training between which T falls
        linearly to 1.

    Raises:
      InputError: for an unknown loss.
    """
    if dirichlet_loss not in LOSSES:
        raise InputError(
            f"dirichlet_loss={dirichlet_loss!r} is not known; accepted: "
            f"{', '.join(LOSSES)}"
        )
    model = build_model()
    chosen = LOSSES[dirichlet_loss]

    def loss(variables, batch, key):
        image = batch.image if batch.perturbed is None else batch.perturbed
        (logits,), variables = forward.forward(model, variables, image, key=key)
        temperature = annealed(
            batch.step, training_steps, dirichlet_start_temperature, dirichlet_annealing
        )
        total = chosen.fn(logits, batch.teacher_logits, temperature)
        accuracy = forward.accuracy(logits, batch.label)
        return total, (forward.model_state(variables), {"accuracy": accuracy})

    def log_alpha(variables, x):
        return chosen.log_alpha(model.apply(variables, x, train=False))

    return Student(
        num_members=1,
        inference_cost=1.0,
        init=forward.create_init(model),
        loss=loss,
        finalise=lambda variables: variables,
        predict=lambda *args: distributions.mean_probs(log_alpha(*args))[None],
        uncertainty=lambda *args: distributions.uncertainties(log_alpha(*args)),
    )


def annealed(
    step: jax.Array, training_steps: int, start: float, shares: tuple[float, float]
) -> jax.Array:
    """Computes the temperature: `start`, then linear between the two shares, then 1.

    Args:
      step: training step.
      training_steps: number of training steps.
      start: value before the first share.
      shares: fractions of the training where the linear part begins and ends.
    """
    first, last = (share * training_steps for share in shares)
    step = jnp.asarray(step, jnp.float32)
    done = jnp.clip((step - first) / max(last - first, 1), 0, 1)
    return start + (1 - start) * done
