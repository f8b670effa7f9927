"""Students of the smallest network, with their losses and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from edp import models, students
from edp.students.student import DistillBatch

M, B, K = 3, 5, 4
STEPS = 10
SETTINGS = {
    **{"alpha": 0.7, "temperature": 2.0, "hydra_single_share": 0.4},
    **{"dirichlet_start_temperature": 5.0, "dirichlet_annealing": (0.2, 0.6)},
    **{"functional_sigma": 0.5, "functional_samples": 2, "functional_teachers": None},
    **{"functional_inference_samples": 4, "mimo_repetitions": 1, "packed_alpha": 1.5},
    **{"bridge_steps": 3, "bridge_one_step_share": 0.5, "bridge_betas": (0.1, 0.2)},
    **{"bridge_width": 8, "flow_width": 8, "flow_samples": 4},
}
X = jax.random.uniform(jax.random.key(0), (B, 6, 6, 1))
LABEL = jnp.arange(B) % K


class Net(models.Classifier):
    """The smallest network with all kinds of layers."""

    def feature_maps(self, x, conv, norm, drop):
        return jax.nn.relu(norm(name="norm")(conv(self.channels(3), name="conv")(x)))


build_model = functools.partial(Net, num_classes=K, mean=(0.5,), std=(0.25,))


def create(kind, **settings):
    """Returns a student of M teachers with these settings."""
    return students.create_student(
        {"student": kind, **SETTINGS, **settings},
        build_model,
        num_members=M,
        training_steps=STEPS,
    )


def initial(student, spread=0.0):
    """Returns initial variables, with positive noise of scale `spread`² added."""
    variables = jax.jit(student.init)(jax.random.key(1), X[:1])
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    leaves = [x + spread * rng.normal(size=x.shape).astype("f") ** 2 for x in leaves]
    return jax.tree.unflatten(tree, leaves)


def teachers(seed=0):
    """Returns logits of different members [M, B, K]."""
    return 2 * jax.random.normal(jax.random.key(seed), (M, B, K))


def make_batch(teacher_logits, step=0):
    """Returns a batch of unperturbed images with these logits [M, B, K]."""
    return DistillBatch(X, LABEL, None, teacher_logits, jnp.int32(step))


def gradient(student):
    """Returns (variables, batch) -> the mean loss over the batch and its gradient."""

    def loss(params, variables, batch):
        variables = {**variables, "params": params}
        return student.loss(variables, batch, jax.random.key(2))[0].mean()

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda variables, batch: compiled(variables["params"], variables, batch)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    """Asserts that two trees of arrays are equal up to rounding."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)
