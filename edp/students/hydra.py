"""Hydra student: a shared body with one light head per teacher."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from edp import losses
from edp.students.matching import matching_student
from edp.students.student import Student


def hydra(
    build_model: Callable,
    *,
    num_members: int,
    training_steps: int,
    alpha: float,
    temperature: float,
    hydra_single_share: float,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a student whose head m, dense on shared features, matches member m.

    (Tran et al., *Hydra: Preserving Ensemble Diversity for Model Distillation*, 2020,
    arXiv 2001.04694.) For the first `hydra_single_share` of the steps, rounded to a
    whole number, it trains as a network with one head that matches the members' mean:
    the M heads start equal and all receive the gradient of that one head. After that
    the loss is the mean over the heads, each with its own teacher. Weights and
    optimizer state continue, in the same compiled program.

    `inference_cost` excludes the heads, whose cost is small beside that of the body.
    """
    single_steps = round(hydra_single_share * training_steps)
    model = build_model(num_heads=num_members)
    student = matching_student(
        model,
        num_members,
        losses.log_probs,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )

    def loss(variables, batch, key):
        single = batch.step < single_steps
        head = jax.tree.map(_tie, variables["params"]["head"])
        head = _choose(single, head, variables["params"]["head"])
        # Logits whose softmax at temperature τ is the members' mean.
        mean = temperature * losses.mean_log_probs(batch.teacher_logits, temperature)
        targets = jnp.where(single, mean, batch.teacher_logits)
        variables = {**variables, "params": {**variables["params"], "head": head}}
        return student.loss(variables, batch._replace(teacher_logits=targets), key)

    return student._replace(inference_cost=1.0, loss=loss)


def _choose(condition, chosen, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def _tie(heads: jax.Array) -> jax.Array:
    """Returns equal heads [M, ...] unchanged; each gets the sum of their gradients."""
    total = heads.sum(axis=0)
    first = jax.lax.stop_gradient(heads[0]) + (total - jax.lax.stop_gradient(total))
    return jnp.broadcast_to(first, heads.shape)
