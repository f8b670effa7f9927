"""Small students, teachers and distillation steps to compare with formulas."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from edp import distill, ensemble, models, perturbations, students

M, B, K = 3, 6, 4
MATCHING = ["batch_ensemble", "single"]  # with the loss on the logits


def build_model(**kwargs):
    """Returns a small network of the batch's images."""
    config = ml_collections.ConfigDict({"name": "convnet", "width": 4})
    return models.create_model(
        config, num_classes=K, mean=(0.5,), std=(0.25,), **kwargs
    )


def make_student(kind, *, alpha=0.7, temperature=2.0, **settings):
    """Returns a student of M teachers, with its kind's settings and these."""
    config = {
        "student": kind,
        "alpha": alpha,
        "temperature": temperature,
        "factor_init": "normal",
        "hydra_single_share": 0.0,
        "mimo_repetitions": 1,
        "packed_alpha": 2.0,
        "dirichlet_loss": "mle",
        "dirichlet_start_temperature": 2.0,
        "dirichlet_annealing": (0.0, 0.5),
        "functional_sigma": 1.0,
        "functional_samples": 2,
        "functional_teachers": None,
        "functional_inference_samples": M,
        "bridge_steps": 3,
        "bridge_one_step_share": 0.5,
        "bridge_betas": (0.1, 0.2),
        "bridge_width": 8,
        "flow_width": 8,
        "flow_samples": None,
        **settings,
    }
    return students.create_student(config, build_model, num_members=M, training_steps=8)


@functools.cache
def teacher_variables():
    """Returns the stacked variables of the M teachers."""
    keys = jax.random.split(jax.random.key(1), M)
    return ensemble.init(build_model(), keys, jnp.zeros((1, 8, 8, 1)))


def create_state(student, tx, images):
    """Returns the initial state of a student of these teachers."""
    return distill.create_state(
        student, tx, jax.random.key(2), images[:1], teacher_variables()
    )


def perturbation(name, **settings):
    """Returns a perturbation of step size 0.05, unless the settings say otherwise."""
    config = {"perturbation": name, "step_size": 0.05, **settings}
    return perturbations.create_perturbation(config)


def one_step(student, teachers, batch, perturb, **kwargs) -> tuple[Any, Any, Any]:
    """Takes one step; returns the state before, the state after and the metrics."""
    tx = optax.sgd(0.1)
    state = create_state(student, tx, batch["image"])
    step = jax.jit(
        lambda s, b, k: distill.distill_step(
            s,
            b,
            k,
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=tx,
            **kwargs,
        )
    )
    return (state, *step(state, batch, jax.random.key(3)))
