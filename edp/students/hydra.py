"""Hydra student: a shared body with one light head per teacher."""

import functools
from collections.abc import Callable

import chex
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
    hydra_mean_share: float = 0.0,
    hydra_diversity: float = 0.0,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a student whose head m, dense on shared features, matches member m.

    (Tran et al., *Hydra: Preserving Ensemble Diversity for Model Distillation*, 2020,
    arXiv 2001.04694.) For the first `hydra_single_share` of the steps, rounded to a
    whole number, it trains as a network with one head that matches the members' mean:
    the M heads start equal and all receive the gradient of that one head. After that
    the loss is the mean over the heads, each with its own teacher. Weights and
    optimizer state continue, in the same compiled program.

    Two terms of Hydra+ (Ferianc and Rodrigues, *Simple Regularisation for
    Uncertainty-Aware Knowledge Distillation*, 2022, arXiv 2205.09526; formulas as in
    the authors' code, martinferianc/hydra_plus, 2023):

    * s = `hydra_mean_share`: the distillation term is (1 − s) times the mean over the
      heads plus s times the divergence of the heads' mean from the members' mean. The
      authors' β is 1 − s; both terms have one τ here.
    * λ = `hydra_diversity`: λ Σ_m Σ_k (1 + cos(w_mk, w̄_k)) / 2 is added to the loss
      once the heads separate, where w_mk are the weights of class k in head m and w̄_k
      their mean over the heads. Biases are left out: of scalars, the cosine is a sign.

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
        distillation=functools.partial(_distillation, mean_share=hydra_mean_share),
    )

    def loss(variables, batch, key):
        single = batch.step < single_steps
        head = jax.tree.map(_tie, variables["params"]["head"])
        head = _choose(single, head, variables["params"]["head"])
        # Logits whose softmax at temperature τ is the members' mean.
        mean = temperature * losses.mean_log_probs(batch.teacher_logits, temperature)
        targets = jnp.where(single, mean, batch.teacher_logits)
        variables = {**variables, "params": {**variables["params"], "head": head}}
        batch = batch._replace(teacher_logits=targets)
        total, (model_state, metrics) = student.loss(variables, batch, key)
        if hydra_diversity:
            similarity = head_similarity(head["kernel"])
            weight = jnp.where(single, 0.0, hydra_diversity)
            total += weight * similarity
            similarity = jnp.broadcast_to(similarity, total.shape)
            metrics = {**metrics, "head_similarity": similarity}
        return total, (model_state, metrics)

    return student._replace(inference_cost=1.0, loss=loss)


def _distillation(target, logits, temperature: float, *, mean_share: float):
    """Computes the distillation term [M, B] of the heads and of their mean."""
    term = losses.distillation(target, logits, temperature)
    if not mean_share:
        return term
    mean_target = losses.mean_log_probs(target)
    mean = losses.mean_log_probs(logits, temperature)
    of_mean = temperature**2 * losses.kl_divergence(mean_target, mean)
    return (1 - mean_share) * term + mean_share * of_mean


def head_similarity(kernels: jax.Array) -> jax.Array:
    """Computes Σ_m Σ_k (1 + cos(w_mk, w̄_k)) / 2 of the heads' weights.

    Args:
      kernels: w [M, D, K]; the mean over the heads is w̄ [D, K].

    Returns:
      [], from 0 to M K, which equal heads have.
    """
    chex.assert_rank(kernels, 3)
    mean = kernels.mean(axis=0)
    product = (kernels * mean).sum(axis=1)
    # The authors' constant, which keeps gradients finite at 0.
    lengths = [jnp.sqrt(jnp.square(w).sum(axis=-2) + 1e-8) for w in (kernels, mean)]
    cosines = product / (lengths[0] * lengths[1] + 1e-8)
    return ((1 + cosines) / 2).sum()


def _choose(condition, chosen, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)


def _tie(heads: jax.Array) -> jax.Array:
    """Returns equal heads [M, ...] unchanged; each gets the sum of their gradients."""
    total = heads.sum(axis=0)
    first = jax.lax.stop_gradient(heads[0]) + (total - jax.lax.stop_gradient(total))
    return jnp.broadcast_to(first, heads.shape)
