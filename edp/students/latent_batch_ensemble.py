"""Latent BatchEnsemble: averaged into one plain network after training."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from edp import losses, models
from edp.runtime import optimizers
from edp.students import forward
from edp.students.matching import matching_student
from edp.students.student import Student


def latent_batch_ensemble(
    build_model: Callable,
    *,
    num_members: int,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a BatchEnsemble that matches one-to-one and ends as W ∘ (r̄ s̄ᵀ).

    (LatentBE; Nam et al., *Improving Ensemble Distillation With Weight Averaging and
    Diversifying Perturbation*, ICML 2022, arXiv 2206.15047.) The subnetworks share
    biases and batch normalisation; their factors r and s start at 1. Published
    hyperparameters: α = 1, τ = 4, 200 epochs, batch size 128, Nesterov momentum 0.9,
    learning rate 0 -> 0.1 in 5 epochs, then cosine, weight decay 5e-4 (see
    `decay_to_one`).
    """
    latent = build_model(num_members=num_members, factor_init="ones", shared_bias=True)
    student = matching_student(
        latent,
        num_members,
        losses.log_probs,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )

    def finalise(variables):
        return {**variables, "params": models.average_factors(variables["params"])}

    plain = build_model()

    def logits(variables, x):
        # Averaged here too: Flax ignores factors that a plain network does not have,
        # so variables in training would give the network without them.
        return plain.apply(finalise(variables), x, train=False)[None]

    predict, uncertainty = forward.predictors_from_logits(logits)
    return student._replace(
        num_members=1,
        inference_cost=1.0,
        finalise=finalise,
        predict=predict,
        uncertainty=uncertainty,
        rule=decay_to_one,
    )


def decay_to_one(
    config: Mapping[str, Any], optimizer: optimizers.Optimizer
) -> optax.GradientTransformation:
    """Creates an optimizer in which factors decay to 1 and learn M times as fast.

    With λ the `weight_decay`, the loss gains λ [½ ‖w‖² + 1/(2M) Σ_m (‖1 − r_m‖² +
    ‖1 − s_m‖²)], where w are all parameters but the factors. The gradients of the
    factors, decay included, are multiplied by M, as if each member had its own
    optimizer. (With AdamW, the steps of the factors are multiplied by M.)
    """
    weight_decay = config["weight_decay"]

    def decayed(is_factor, gradient, value):
        if is_factor:
            return len(value) * gradient + weight_decay * (value - 1)
        return gradient + weight_decay * value

    def decay(gradients, params):
        return jax.tree.map(decayed, models.rank_one_mask(params), gradients, params)

    return optax.chain(*optimizer(optax.stateless(decay)))
