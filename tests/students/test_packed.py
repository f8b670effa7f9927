"""Packed students against the narrow networks that they consist of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from edp import models, students
from edp.errors import InputError
from edp.models import native
from edp.students.packed import _is_interleaved
from edp.students.student import DistillBatch

M, B, K = 2, 5, 4
X = jax.random.uniform(jax.random.key(0), (B, 8, 8, 1))
LABEL = jnp.arange(B) % K
TEACHERS = 2 * jax.random.normal(jax.random.key(3), (M, B, K))


def builder(**model):
    return functools.partial(
        models.create_model,
        ConfigDict(model),
        num_classes=K,
        mean=(0.5,),
        std=(0.25,),
    )


def create(kind, build_model, num_members):
    settings = {"alpha": 0.7, "temperature": 2.0, "packed_alpha": 1.0}
    return students.create_student(
        {"student": kind, **settings},
        build_model,
        num_members=num_members,
        training_steps=10,
    )


def run(student, variables, teacher_logits):
    batch = DistillBatch(X, LABEL, X[::-1], teacher_logits, jnp.int32(0))

    @jax.jit
    def compute(variables):
        total, (state, metrics) = student.loss(variables, batch, jax.random.key(2))
        return total, state, metrics, student.predict(variables, X)

    return compute(variables)


def test_it_is_the_mean_of_narrow_students_with_a_teacher_each():
    build_model = builder(name="convnet", width=4)
    packed = create("packed", build_model, M)
    variables = jax.jit(packed.init)(jax.random.key(1), X[:1])
    total, state, metrics, probs = run(packed, variables, TEACHERS)
    narrow = functools.partial(build_model, width_factor=1 / M)
    single = create("single", narrow, 1)
    assert variables["params"]["conv1"]["kernel"].shape == (M, 3, 3, 1, 2)
    results = [
        run(single, jax.tree.map(lambda x, m=m: x[m], variables), TEACHERS[m : m + 1])
        for m in range(M)
    ]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *results)
    np.testing.assert_allclose(total, expected[0].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(probs, expected[3][:, 0], rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        state,
        expected[1],
    )
    assert set(metrics) == {"label_loss", "distillation_loss", "accuracy"}


@pytest.mark.skipif(not native.in_use(), reason="of the native kernels")
def test_four_members_at_once_compute_what_each_does():
    num_members = 5
    build_model = builder(name="resnet", depth=8, width=16)
    settings = {"alpha": 0.7, "temperature": 2.0, "packed_alpha": num_members / 2}
    create = functools.partial(students.create_student, training_steps=1)
    packed = create(
        {"student": "packed", **settings}, build_model, num_members=num_members
    )
    single = create(
        {"student": "single", **settings},
        functools.partial(build_model, width_factor=0.5),
        num_members=1,
    )
    variables = jax.jit(packed.init)(jax.random.key(1), X[:1])
    # Not the initial statistics and scales, which are alike in all channels.
    variables = jax.tree.map(
        lambda x: x + 0.1 * jax.random.uniform(jax.random.key(2), x.shape), variables
    )
    teacher_logits = jax.random.normal(jax.random.key(3), (num_members, B, K))

    def compute(student, variables, teacher_logits):
        batch = DistillBatch(X, LABEL, None, teacher_logits, jnp.int32(0))

        def loss(params):
            new = {**variables, "params": params}
            total, (state, _) = student.loss(new, batch, jax.random.key(2))
            return len(teacher_logits) * total.mean(), (total, state)

        grads, (total, state) = jax.grad(loss, has_aux=True)(variables["params"])
        return total, grads, state, student.predict(variables, X)

    program = jax.jit(functools.partial(compute, packed))
    assert "edp_affine" in str(program.trace(variables, teacher_logits).jaxpr)
    total, *results = program(variables, teacher_logits)
    alone = jax.jit(functools.partial(compute, single))
    expected_total, *expected = jax.tree.map(
        lambda *leaves: np.stack(leaves),
        *[
            alone(jax.tree.map(lambda x, m=m: x[m], variables), teacher_logits[m, None])
            for m in range(num_members)
        ],
    )
    expected[-1] = expected[-1][:, 0]
    np.testing.assert_allclose(total, expected_total.mean(axis=0), rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        results,
        expected,
    )


@pytest.mark.parametrize(("stem_strides", "fits"), [(1, True), (2, True), (3, False)])
def test_a_stride_without_a_kernel_is_not_interleaved(stem_strides, fits):
    settings = {"name": "resnet", "depth": 8, "width": 8}
    network = builder(**settings, stem_strides=stem_strides)()
    like = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), X
    )
    four = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), like
    )
    assert _is_interleaved(network, four, X) == (fits and native.in_use())


def test_a_network_that_keeps_its_width_is_refused():
    class Fixed(models.Classifier):
        def feature_maps(self, x, conv, norm, drop):
            return conv(4, name="conv")(x)

    fixed = functools.partial(Fixed, num_classes=K, mean=(0.5,), std=(0.25,))
    with pytest.raises(InputError, match=r"packed_alpha=1.0 .* 56 parameters at 56"):
        create("packed", fixed, M).init(jax.random.key(0), X[:1])


def test_the_members_start_apart():
    packed = create("packed", builder(name="convnet", width=4), M)
    variables = jax.jit(packed.init)(jax.random.key(1), X[:1])
    first, second = variables["params"]["conv1"]["kernel"]
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize(
    ("model", "layer", "channels"),
    [
        ({"name": "convnet", "width": 16}, ("conv3",), 16),
        ({"name": "resnet", "depth": 8, "width": 16}, ("stage3_block1", "conv2"), 32),
        (
            {"name": "wide_resnet", "depth": 10, "widen_factor": 2},
            ("stage1_block1", "conv1"),
            16,
        ),
        ({"name": "resnet50", "blocks": (1,)}, ("stage1_block1", "conv3"), 128),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else None,
)
def test_widths_are_multiplied(model, layer, channels):
    module = builder(**model)(width_factor=0.5)
    shapes = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), X
    )
    params = shapes["params"]
    for name in layer:
        params = params[name]
    assert params["kernel"].shape[-1] == channels


def test_a_width_is_at_least_one_channel():
    module = builder(name="convnet", width=1)(width_factor=0.01)
    assert [module.channels(n) for n in (1, 149, 150, 151)] == [1, 1, 2, 2]
    with pytest.raises(InputError, match="width_factor=0"):
        builder(name="convnet")(width_factor=0)


def test_the_cost_is_that_of_narrow_networks():
    build_model = builder(name="convnet", width=16)
    settings = {"student": "packed", "alpha": 0.9, "temperature": 1.0}
    packed = students.create_student(
        {**settings, "packed_alpha": 2.0}, build_model, num_members=4, training_steps=1
    )
    assert packed.inference_cost == 1.0 and packed.num_members == 4
