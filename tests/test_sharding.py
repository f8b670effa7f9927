"""A mesh of devices changes where things are computed, not what."""

import os
import subprocess
import sys

import pytest

from edp import sharding
from edp.errors import InputError

# In a process of its own, which sees eight devices.
SCRIPT = """
import jax, numpy as np, jax.numpy as jnp, ml_collections, optax
from edp import distill, ensemble, models, perturbations, sharding, students

M, B, K = 4, 16, 4
config = ml_collections.ConfigDict({"name": "convnet", "width": 4})
build = lambda **kw: models.create_model(
    config, num_classes=K, mean=(0.5,), std=(0.25,), **kw)
model, tx = build(), optax.sgd(0.1, momentum=0.9)
x0 = jnp.zeros((1, 8, 8, 1))
state = ensemble.create_state(model, tx, jax.random.split(jax.random.key(0), M), x0)
rng = np.random.default_rng(0)
image = rng.uniform(size=(M, B, 8, 8, 1)).astype(np.float32)
label = rng.integers(0, K, size=(M, B))
student = students.create_student(
    {"student": "batch_ensemble", "alpha": 0.9, "temperature": 1.0,
     "factor_init": "normal"}, build, num_members=M)
student_state = distill.create_state(student, tx, jax.random.key(1), x0)

def run(mesh, strategy, name):
    @jax.jit
    def teach(state, image, label):
        batch = sharding.constrain(
            {"image": image, "label": label}, mesh, sharding.MEMBER, sharding.DATA)
        return ensemble.train_step(
            state, batch, jax.random.key(2), model=model, tx=tx,
            strategy=strategy, mesh=mesh)

    @jax.jit
    def learn(student_state, variables, image, label):
        batch = sharding.constrain(
            {"image": image, "label": label}, mesh, sharding.DATA)
        teachers = ensemble.teachers_from_variables(
            model, variables, strategy=strategy, mesh=mesh)
        return distill.distill_step(
            student_state, batch, jax.random.key(3), student=student,
            teachers=teachers, tx=tx, perturb=perturbations.create_perturbation(
                {"perturbation": name, "step_size": 0.02}))

    stacked = state._replace(**{
        name: sharding.put(getattr(state, name), mesh, sharding.MEMBER)
        for name in ("params", "model_state", "opt_state")})
    new, metrics = teach(stacked, image, label)
    learned, student_metrics = learn(
        sharding.put(student_state, mesh), new.variables, image[0], label[0])
    return new, metrics, learned, student_metrics

for name in ("disagreement", "conf_ods"):
    reference = run(None, "unroll", name)
    for member, data in ((4, 2), (2, 4), (1, 8), (4, 1)):
        mesh = sharding.create_mesh(member, data)
        result = run(mesh, "vmap", name)
        if member > 1:
            leaf = jax.tree.leaves(result[0].params)[0]
            assert leaf.sharding.spec[0] == "member", leaf.sharding
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
            reference, result)
        print("same", name, member, data)
"""


def test_sharded_equals_unsharded():
    flags = (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    )
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("same") == 8


def test_one_device_needs_no_mesh():
    assert sharding.create_mesh(1, 1) is None


def test_too_many_devices_are_refused():
    with pytest.raises(InputError, match=r"mesh\.member=64 x mesh\.data=2 .*device"):
        sharding.create_mesh(64, 2)


def test_sizes_that_do_not_divide_are_refused():
    class FakeMesh:
        shape = {"member": 3, "data": 1}  # noqa: RUF012

    with pytest.raises(InputError, match=r"num_members=4.*mesh\.member=3"):
        sharding.check_divides(FakeMesh(), "member", "teachers.num_members", 4)
    sharding.check_divides(FakeMesh(), "member", "teachers.num_members", 6)
