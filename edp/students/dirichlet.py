"""A network whose logits are the concentrations of a Dirichlet distribution."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.students import dirichlet_math as distributions
from edp.students import forward
from edp.students.student import Student


class _Loss(NamedTuple):
    """(z [B, K], teacher logits [M, B, K], T) -> [B]; and z -> ln α at T = 1."""

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
    """A plain network that tells a distribution of the members' probabilities.

    (EnD²; Malinin, Mlodozeniec, Gales, *Ensemble Distribution Distillation*, ICLR
    2020, arXiv 1905.00076.) With `dirichlet_loss` 'mle' it maximises the likelihood
    of the members' probabilities; its temperature T goes linearly from
    `dirichlet_start_temperature` to 1 between the two shares of the training that
    `dirichlet_annealing` gives. With 'proxy' it approaches the proxy target (Ryabinin
    et al., NeurIPS 2021, arXiv 2105.06987), and there is no temperature.

    There is no label term: of two inputs it sees the perturbed one alone. It predicts
    the mean of its distribution.

    Raises:
      InputError: for an unknown loss.
    """
    if dirichlet_loss not in LOSSES:
        raise InputError(
            f"dirichlet_loss={dirichlet_loss!r} must be one of {', '.join(LOSSES)}"
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
    """`start` up to the first share of the steps, 1 from the second, between linear."""
    first, last = (share * training_steps for share in shares)
    done = jnp.clip((step - first) / max(last - first, 1), 0, 1)
    return start + (1 - start) * done
