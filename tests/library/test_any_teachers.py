"""Teachers from functions and from a loader work like a stacked ensemble."""

import functools

import compiled
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from edp import distill, ensemble, models, perturbations, students
from edp.errors import InputError
from edp.evaluation import disagreement
from edp.runtime import batched, checkpoint

B, K, M = 6, 4, 3
TX = optax.sgd(0.1)


def build_model(width=2, **kwargs):
    config = ml_collections.ConfigDict({"name": "convnet", "width": width})
    return models.create_model(
        config, num_classes=K, mean=(0.5,), std=(0.25,), **kwargs
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (B, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def members(images):
    model = build_model()
    return [
        compiled.init(model, key, np.float32(images[:1]))
        for key in jax.random.split(jax.random.key(0), M)
    ]


def apply(variables, x):
    return build_model().apply(variables, x, train=False)


def on_the_host(variables, x):
    """Computes logits on the host, like a model of another framework: no gradient."""
    kernel = np.asarray(variables["params"]["head"]["kernel"])

    def logits(x):
        pixels = np.asarray(x).reshape(len(x), -1)
        return (pixels[:, : len(kernel)] @ kernel).astype(np.float32)

    shape = jax.ShapeDtypeStruct((len(x), K), jnp.float32)
    return jax.pure_callback(logits, shape, x)


def in_jax(variables, x):
    """Computes in JAX what `on_the_host` computes."""
    kernel = variables["params"]["head"]["kernel"]
    return x.reshape(len(x), -1)[:, : len(kernel)] @ kernel


def distil(teachers, images, perturbation):
    """Returns the student after one step, its loss, perturbed inputs, predictions."""
    config = {"perturbation": perturbation, "temperature": 2.0}
    student = students.create_student(
        {"student": "single", "alpha": 0.7, "temperature": 2.0},
        build_model,
        num_members=M,
        training_steps=1,
    )

    def create(step_size):
        return perturbations.create_perturbation({**config, "step_size": step_size})

    batch = {"image": np.float32(images) / 255, "label": np.arange(B) % K}
    state = distill.create_state(student, TX, jax.random.key(1), batch["image"][:1])
    step = functools.partial(
        distill.distill_step,
        student=student,
        teachers=teachers,
        perturb=create(0.05),
        tx=TX,
    )
    state, metrics = jax.jit(step)(state, batch, jax.random.key(2))
    perturber = disagreement.create_perturber(create, lambda _: teachers, {}, B - 2)
    perturbed = perturber(jax.random.key(3), images, 0.05)
    predict = jax.jit(lambda x: jax.nn.softmax(teachers.all_logits(x)))
    probs = batched.predict_in_batches(predict, batch["image"], B - 2)
    return state.params, metrics["loss"], perturbed, probs


def assert_distilled_equally(a, b, images, perturbation):
    found, expected = (distil(teachers, images, perturbation) for teachers in (a, b))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), found, expected
    )


def test_functions_distil_like_the_stacked_ensemble(members, images):
    functions = [functools.partial(apply, variables) for variables in members]
    stacked = ensemble.teachers_from_variables(build_model(), ensemble.stack(members))
    assert_distilled_equally(
        ensemble.teachers_from_functions(functions), stacked, images, "disagreement"
    )


def test_mixed_architectures_distil(members, images):
    wide = build_model(width=3)
    variables = compiled.init(wide, jax.random.key(5), np.float32(images[:1]))
    foreign = [on_the_host, in_jax]
    mixed = [
        ensemble.teachers_from_functions(
            [
                functools.partial(apply, members[0]),
                lambda x: wide.apply(variables, x, train=False),
                functools.partial(other, members[1]),
            ]
        )
        for other in foreign
    ]
    assert_distilled_equally(*mixed, images, "gaussian")


def test_members_loaded_on_demand_distil_like_those_in_memory(
    members, images, tmp_path
):
    for m, variables in enumerate(members):
        checkpoint.save_variables(tmp_path / str(m), variables)
    read = []

    def load(m):
        read.append(m)
        return checkpoint.load_arrays(tmp_path / str(m))

    stacked = ensemble.teachers_from_variables(build_model(), ensemble.stack(members))
    on_demand = ensemble.teachers_from_loader(build_model(), load, members[0], M)
    assert_distilled_equally(on_demand, stacked, images, "conf_ods")
    assert set(read) == set(range(M))


def test_teachers_of_different_classes_are_named():
    teachers = ensemble.teachers_from_functions(
        [lambda x: x[:, :4], lambda x: x[:, :4], lambda x: x[:, :3]]
    )
    x = jnp.ones((B, 5))
    for logits in (teachers.all_logits, jax.jit(teachers.all_logits)):
        with pytest.raises(
            InputError, match=r"teacher 2 returns logits \[6, 3\]; accepted: \[6, 4\]"
        ):
            logits(x)
    with pytest.raises(
        InputError, match=r"teacher 2 returns logits float32\[6, 3\]; .*\[6, 4\]"
    ):
        jax.jit(teachers.member_logits)(1, x)
    mixed = ensemble.teachers_from_functions([lambda x: x, jnp.bfloat16])
    with pytest.raises(InputError, match=r"teacher 1 returns logits bfloat16\[6, 5\]"):
        jax.jit(mixed.member_logits)(1, x)
    assert mixed.all_logits(x).dtype == jnp.float32  # stacked, they are promoted


def test_errors_of_a_member_are_its_own():
    def broken(x):
        raise TypeError("of the member")

    teachers = ensemble.teachers_from_functions([lambda x: x, broken])
    with pytest.raises(TypeError, match="of the member"):
        jax.jit(teachers.member_logits)(1, jnp.ones((B, K)))


def test_a_member_that_does_not_exist_is_refused():
    functions = [lambda x, m=m: jnp.full((len(x), K), m) for m in range(M)]
    of_functions = ensemble.teachers_from_functions(functions)
    of_groups = ensemble.teachers_from_groups([of_functions, of_functions])
    loaded = ensemble.teachers_from_loader(build_model(), lambda m: {}, {}, M)
    x = jnp.zeros((1, 2))
    for teachers in (of_functions, of_groups, loaded):
        for m in (-1, np.int64(teachers.num_members)):
            with pytest.raises(InputError, match=rf"member={m} of .*; accepted: 0 to"):
                teachers.member_logits(m, x)
    assert of_groups.member_logits(np.int64(M + 1), x)[0, 0] == 1
