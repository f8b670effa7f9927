"""Small networks in Linen and NNX, and one distillation step with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from edp import distill, perturbations, students

K = 4
X = jax.random.uniform(jax.random.key(0), (6, 5, 5, 3))
LABELS = jnp.arange(6) % K


def one_step(teachers, build, perturbation="none"):
    """Takes one step; returns the states before and after, and the metrics."""
    settings = {"student": "single", "perturbation": perturbation, "alpha": 0.5}
    settings |= {"temperature": 2.0, "step_size": 0.05}
    student = students.create_student(
        settings, build, num_members=teachers.num_members, training_steps=1
    )
    perturb = perturbations.create_perturbation(settings)
    state = distill.create_state(student, optax.sgd(0.1), jax.random.key(1), X[:1])

    @jax.jit
    def step(state):
        return distill.distill_step(
            state,
            {"image": X, "label": LABELS},
            jax.random.key(2),
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=optax.sgd(0.1),
        )

    return state, *step(state)


class LinenNet(nn.Module):
    """Normalises, averages over the pixels and classifies."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(K, name="head")(x.mean((1, 2)))


class NNXNet(nnx.Module):
    """The same with dropout, in NNX."""

    def __init__(self, rngs, rate=0.0, channels=3, num_classes=K):
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(self.norm(x)).mean((1, 2)))
