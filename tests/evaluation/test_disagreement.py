"""Tests of the analysis: values computed by hand, and identities."""

import functools
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from edp import distill, ensemble, models, perturbations, students
from edp.evaluation import analysis, disagreement, distances

LOG = math.log


def random_probs(*shape):
    logits = np.random.default_rng(0).normal(size=shape, scale=3)
    return np.array(jax.nn.softmax(logits), np.float32)


def test_match_by_hand():
    teachers = np.array([[[0.5, 0.5]], [[0.9, 0.1]]], np.float32)
    student = np.array([[[0.8, 0.2]], [[0.4, 0.6]]], np.float32)
    found = disagreement.match(teachers, student, 1.0)
    # Of the means 0.7, 0.3 and 0.6, 0.4; and of each pair of members.
    pooled = 0.7 * LOG(7 / 6) + 0.3 * LOG(3 / 4)
    pairs = [0.5 * LOG(5 / 8) + 0.5 * LOG(5 / 2), 0.9 * LOG(9 / 4) + 0.1 * LOG(1 / 6)]
    assert found.keys() == {"match_kl", "member_match_kl"}
    assert found["match_kl"] == pytest.approx(pooled, rel=1e-5)
    assert found["member_match_kl"] == pytest.approx(sum(pairs) / 2, rel=1e-5)


def test_match_is_at_the_temperature_of_each_member():
    # Odds of 9 and 1/4 are of 3 and 1/2 at temperature 2: the mean of 3/4 and 1/3.
    teachers = np.array([[[0.9, 0.1]], [[0.2, 0.8]]], np.float32)
    # Odds of 16 are of 4.
    student = np.array([[[16 / 17, 1 / 17]]], np.float32)
    target = 13 / 24
    expected = target * LOG(target / 0.8) + (1 - target) * LOG((1 - target) / 0.2)
    found = disagreement.match(teachers, student, 2.0)
    assert found == {"match_kl": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_equal_to_its_teachers_matches_them(temperature):
    probs = random_probs(3, 40, 5)
    probs[:, 0] = [1, 0, 0, 0, 0]
    assert disagreement.match(probs, probs, temperature) == {
        "match_kl": 0.0,
        "member_match_kl": 0.0,
    }
    others = disagreement.match(probs, probs[[1, 2, 0]], temperature)
    assert others["match_kl"] == pytest.approx(0, abs=1e-6)
    assert others["member_match_kl"] > 0.1
    assert disagreement.match(probs[:1], probs[:1], temperature) == {"match_kl": 0.0}


def test_certain_predictions_are_a_finite_way_apart():
    probs = np.eye(3, dtype=np.float32)[None]
    found = disagreement.match(probs, probs[:, ::-1], 1.0)["match_kl"]
    assert 50 < found < 100


def test_compare_puts_a_student_beside_its_teachers():
    labels = np.zeros(40, int)
    probs = np.repeat(random_probs(1, 40, 5), 3, axis=0)
    view = disagreement.View(np.zeros((40, 1, 1, 1)), labels, probs)
    names = ("pairwise_kl", "disagreement_rate", "mutual_information", "variance")
    row = disagreement.compare(view, random_probs(3, 40, 5), 2.0)
    for name in names:
        assert row[f"teacher_{name}"] == pytest.approx(0, abs=1e-6) != row[name]
    assert row["tempered_match_kl"] < row["match_kl"]
    assert row["teacher_error"] == np.mean(probs[0].argmax(-1) != 0)
    alone = disagreement.compare(view, probs[:1], 2.0)
    assert not {*names, "member_match_kl"} & alone.keys()
    assert alone["error"] == alone["teacher_error"]


@pytest.mark.parametrize("name", ["gaussian", "ods", "conf_ods", "disagreement"])
def test_one_program_perturbs_by_every_step_size(name):
    weights = jax.random.normal(jax.random.key(0), (2, 12, 3))

    def make_teachers(weights):
        return ensemble.teachers_from_functions(
            [lambda x, w=w: x.reshape(len(x), -1) @ w for w in weights]
        )

    compiled = []

    def create(step_size):
        compiled.append(step_size)
        config = {"perturbation": name, "step_size": step_size}
        return perturbations.create_perturbation(config)

    images = np.random.default_rng(0).integers(90, 160, (5, 2, 2, 3)).astype(np.uint8)
    key = jax.random.key(1)
    perturb = disagreement.create_perturber(
        create, make_teachers, weights, batch_size=2
    )
    moved = {step_size: perturb(key, images, step_size) for step_size in (0.01, 0.02)}
    assert len(compiled) == 1
    # The last batch of two begins with an image that the one before ends with.
    x = jnp.asarray(images[3:] / np.float32(255))
    for step_size, found in moved.items():
        alone = create(step_size)(jax.random.fold_in(key, 4), x, make_teachers(weights))
        np.testing.assert_allclose(found[4], alone[1], atol=1e-6)
    changes = [moved[step_size] - images / np.float32(255) for step_size in moved]
    np.testing.assert_allclose(changes[1], 2 * changes[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["single", "batch_ensemble"])
def test_the_student_is_passed_as_training_passes_it(kind):
    images = np.random.default_rng(0).integers(90, 160, (3, 4, 4, 1)).astype(np.uint8)
    x = images / np.float32(255)
    build_model = functools.partial(
        models.create_model,
        ml_collections.ConfigDict({"name": "convnet", "width": 4}),
        num_classes=3,
        mean=(0.5,),
        std=(0.25,),
    )
    student = students.create_student(
        {"student": kind, "alpha": 0.9, "temperature": 1.0, "factor_init": "normal"},
        build_model,
        num_members=2,
        training_steps=1,
    )
    taught = []

    def loss(variables, batch, key):
        taught.append(batch.perturbed)
        model_state = {k: v for k, v in variables.items() if k != "params"}
        return jnp.zeros(len(batch.image)), (model_state, {})

    def create(step_size):
        # Perturbs by its argument, whatever the key.
        def perturb(key, x, teachers, student=None):
            move = 0.0 if student is None else student(x).std(axis=(0, 2))
            return x + step_size * (1 + jnp.reshape(move, (-1, 1, 1, 1)))

        return perturb

    teachers = ensemble.teachers_from_functions([lambda x: x[:, 0, :3, 0]] * 2)
    tx = optax.sgd(0.1)
    state = distill.create_state(student, tx, jax.random.key(0), x[:1])
    distill.distill_step(
        state,
        {"image": jnp.asarray(x), "label": jnp.zeros(3, int)},
        jax.random.key(1),
        student=student._replace(loss=loss),
        teachers=teachers,
        perturb=create(0.01),
        tx=tx,
    )
    perturb = disagreement.create_perturber(
        create,
        lambda _: teachers,
        {},
        batch_size=2,
        matched=student.matched,
        student_variables=state.variables,
    )
    moved = perturb(jax.random.key(2), images, 0.01)
    np.testing.assert_allclose(moved, taught[0], atol=1e-6)
    assert (moved > x + 0.0101).all() == (kind == "batch_ensemble")


def test_the_first_alike_stands_for_all():
    students = {
        "a": {"perturbation": "ods", "step_size": 0.1, "quantity": "variance"},
        "b": {"perturbation": "ods", "step_size": 0.2},
        "c": {"perturbation": "mixup", "step_size": 0.1, "temperature": 1.0},
        "d": {"perturbation": "ods", "step_size": 0.1, "quantity": "projection"},
        "e": {"perturbation": "mixup", "step_size": 0.2, "temperature": 4.0},
        "f": {"perturbation": "mixup", "mixup_alpha": 0.2},
        "g": {"perturbation": "mixup+ods", "step_size": 0.1},
        "h": {"perturbation": "mixup+ods", "step_size": 0.2},
    }
    names = list(students)
    first = analysis._first_alike(students)
    assert [first[name] for name in names] == list("abcacfgh")
    first = analysis._first_alike(students, but=["step_size"])
    assert [first[name] for name in names] == list("aacacfgg")
    first = analysis._first_alike(students, but=["step_size"], apart="ceg")
    assert [first[name] for name in names] == list("aacaefgh")


def test_distances_to_the_data_by_hand():
    # In two pixels: the nearest others are at 1, 1 and 2, in the mean 4/3.
    images = np.array([[0, 0], [0, 1], [2, 1]])[:, :, None, None]
    to_data = distances.DistanceToData(images)
    assert to_data.mean(images) == 0
    # At 0.5 from the second image, and at 5 (3, 4) from the third.
    inputs = np.array([[0.0, 1.5], [5.0, 5.0]])[:, :, None, None]
    assert to_data.mean(inputs) == pytest.approx((0.5 + 5) / 2 / (4 / 3))
    # A step of η√D is a distance of η√D, far below that between images.
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(20, 32, 32, 3))
    moved = images + rng.choice([-1, 1], images.shape) / 255
    near = np.linalg.norm((images[:, None] - images).reshape(20, 20, -1), axis=-1)
    near[np.arange(20), np.arange(20)] = np.inf
    expected = 3072**0.5 / 255 / near.min(1).mean()
    found = distances.DistanceToData(images).mean(moved)
    assert found == pytest.approx(expected, rel=1e-4)
    for alone in (images[:1], images[[0, 0]]):
        assert distances.DistanceToData(alone).mean(moved) is None
