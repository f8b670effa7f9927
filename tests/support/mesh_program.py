"""Checks steps on eight devices: `python mesh_program.py MEMBER DATA STRATEGY CASE...`

A mesh must not change a result, and devices must communicate only what they need. A
case is `student:perturbation`, optionally with `:one_at_once`, `:spread` or `:result`
(communication is not checked). `test_sharding` starts this in a process with eight CPU
devices.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from collectives import collectives

from configs import default
from edp import distill, ensemble, models, perturbations, students
from edp.experiment import distilled_from, step_inputs
from edp.runtime import sharding

M, B, K, SIZE = 4, 16, 4, 8
CONFIG = ml_collections.ConfigDict({"name": "convnet", "width": 4})
TX = optax.sgd(0.1, momentum=0.9)
EXAMPLE = np.zeros((1, SIZE, SIZE, 1), np.float32)
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(size=(M, B, SIZE, SIZE, 1)).astype(np.float32)
LABEL = RNG.integers(0, K, size=(M, B))


def build_model(**kwargs):
    return models.create_model(
        CONFIG, num_classes=K, mean=(0.5,), std=(0.25,), **kwargs
    )


def num_bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def own_bytes(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def compile_step(step, mesh, state, *args):
    """Compiles a step as training does: the state keeps its sharding."""
    placed = None if mesh is None else jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, out_shardings=(placed, None)).lower(state, *args).compile()


def check_sums(found, variables, *, passes):
    """Checks that only sums over the batch go over `data`, no batched arrays.

    They are the moments of batch normalisation in the forward and backward pass, the
    gradient of the parameters and a few metrics.
    """
    assert {c.kind for c in found} == {"all-reduce"}, found
    total = sum(c.num_bytes for c in found)
    params, moments = (num_bytes(variables[k]) for k in ("params", "batch_stats"))
    assert params <= total <= passes * (params + 2 * moments) + 64, total


def check_teachers(mesh):
    """Checks that members do not communicate; returns variables after the step."""
    model, key = build_model(), jax.random.key(2)
    keys = jax.random.split(jax.random.key(0), M)
    alone = ensemble.create_state(model, TX, keys, jnp.asarray(EXAMPLE))
    state = ensemble.place(alone, mesh)
    batch = {"image": IMAGE, "label": LABEL}
    split = sharding.put(batch, mesh, sharding.MEMBER, sharding.DATA)
    step = functools.partial(ensemble.train_step, model=model, tx=TX)
    on_mesh = functools.partial(step, mesh=mesh)
    compiled = compile_step(on_mesh, mesh, state, split, key)
    found = collectives(compiled, mesh)
    assert not any("member" in c.axes for c in found), found
    one_device = jax.tree.map(lambda x: x[: M // mesh.shape["member"]], alone.variables)
    check_sums(found, one_device, passes=1)
    result = compiled(state, split, key)
    reference = functools.partial(step, strategy="vmap")
    expected = compile_step(reference, None, alone, batch, key)(alone, batch, key)
    assert_close(result, expected)
    variables = result[0].variables
    digests = map(distilled_from.digest, (variables, jax.device_get(variables)))
    assert len(set(digests)) == 1
    return variables


def check_batches(mesh):
    """Checks that each device selects and augments its own images."""
    config = ml_collections.ConfigDict({"crop_padding": 2, "flip": True})
    make_batch = functools.partial(
        step_inputs.make_batch, augment=step_inputs.create_augment(config)
    )
    images = RNG.integers(0, 256, size=(64, SIZE, SIZE, 1)).astype(np.uint8)
    train = (images, np.arange(64) % K)
    for shape in ((M, B), (B,)):
        indices = RNG.integers(0, 64, size=shape)
        batches = []
        for devices in (mesh, None):
            make = jax.jit(functools.partial(make_batch, mesh=devices))
            args = (jax.random.key(4), sharding.put(train, devices), indices)
            compiled = make.lower(*args).compile()
            if devices is not None:
                assert not collectives(compiled, mesh)
            batches.append(compiled(*args))
        assert_close(*batches)
        # Streamed batches come as they are split there; this process has all parts.
        axes = (sharding.MEMBER, sharding.DATA)[-len(shape) :]
        assert sharding.local_part(shape, mesh, *axes) == tuple(
            map(slice, (0, 0), shape)
        )
        steps = tuple(x[indices][None] for x in train)
        steps = sharding.put_parts(steps, mesh, (1, *shape), None, *axes)
        make = jax.jit(functools.partial(make_batch, mesh=mesh))
        args = (jax.random.key(4), None, tuple(x[0] for x in steps))
        compiled = make.lower(*args).compile()
        assert not collectives(compiled, mesh)
        assert_close(compiled(*args), batches[0])


def compile_student(mesh, strategy, variables, kind, perturbation, options):
    """Returns a compiled step and its arguments."""
    student = students.create_student(
        {**default.get_config().distill, "student": kind},
        build_model,
        num_members=M,
        training_steps=1,
    )
    config = {"perturbation": perturbation, "step_size": 0.02}
    if "one_at_once" in options:
        config["members_at_once"] = 1
    state = distill.create_state(student, TX, jax.random.key(1), EXAMPLE, variables)
    state = sharding.put(state, mesh)
    if "spread" in options:
        spread = sharding.put_spread(state.opt_state, mesh, min_size=100)
        state = state._replace(opt_state=spread)

    def step(state, variables, batch, key):
        teachers = ensemble.teachers_from_variables(
            build_model(), variables, strategy=strategy, mesh=mesh
        )
        return distill.distill_step(
            state,
            batch,
            key,
            student=student,
            teachers=teachers,
            perturb=perturbations.create_perturbation(config),
            tx=TX,
            mesh=mesh,
        )

    batch = {"image": IMAGE[0], "label": LABEL[0]}
    batch = sharding.put(batch, mesh, sharding.DATA)
    args = (state, variables, batch, jax.random.key(3))
    return compile_step(step, mesh, *args), args


def check_student(mesh, strategy, variables, kind, perturbation, *options):
    """Checks that a step on the mesh equals that on one device."""
    case = (kind, perturbation, options)
    compiled, args = compile_student(mesh, strategy, variables, *case)
    if "result" not in options:
        check_sent(collectives(compiled, mesh), mesh, args[0], perturbation, options)

    new, metrics = compiled(*args)
    if "spread" in options:
        assert own_bytes(new.opt_state) < num_bytes(new.opt_state) / 4
    variables = jax.device_get(variables)
    alone, args = compile_student(None, "vmap", variables, kind, perturbation, ())
    assert_close((new, metrics), alone(*args))


def check_sent(found, mesh, state, perturbation, options):
    """Checks that logits and input gradients go over `member`, no parameters."""
    own = B // mesh.shape["data"]
    logits = ("all-gather", [(M, own, K)])
    gradient = ("all-reduce", [(own, SIZE, SIZE, 1)])
    picked = ("all-reduce", [(own, K)])
    expected = {
        "none": [logits],
        "disagreement": [logits, gradient, logits],
        "conf_ods": [picked, gradient, logits],
    }[perturbation]
    if mesh.shape["member"] > 1:
        over_member = [(c.kind, c.shapes) for c in found if c.axes == ("member",)]
        assert sorted(over_member) == sorted(expected), over_member

    over_data = [c for c in found if "data" in c.axes]
    if "spread" in options:
        gathered = [c for c in over_data if c.kind == "all-gather"]
        kernels = [x.shape for x in jax.tree.leaves(state.params) if x.size >= 100]
        assert sorted(c.shapes for c in gathered) == sorted([s] for s in kernels)
        over_data = [c for c in over_data if c not in gathered]
    passes = 1 if perturbation == "none" else 2
    check_sums(over_data, state.variables, passes=passes)


def main(member, data, strategy, *cases):
    mesh = sharding.create_mesh(int(member), int(data))
    variables = check_teachers(mesh)
    check_batches(mesh)
    for case in cases:
        check_student(mesh, strategy, variables, *case.split(":"))
        print("passed", case)


if __name__ == "__main__":
    main(*sys.argv[1:])
