"""Tests of students that predict a Dirichlet distribution."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_students import (
    STEPS,
    K,
    X,
    assert_close,
    build_model,
    create,
    initial,
    make_batch,
    teachers,
)

from edp.errors import InputError
from edp.students import dirichlet_math as distributions
from edp.students.dirichlet import annealed


def test_dirichlet_is_annealed_to_the_likelihood_at_temperature_1():
    student = create("dirichlet", dirichlet_loss="mle")
    variables = initial(student)
    logits, _ = compiled.train_pass(build_model(), variables, X)
    expected = jax.jit(distributions.negative_log_likelihood)
    # From 5 after 2 of 10 steps to 1 after 6.
    for step, temperature in ((0, 5), (2, 5), (3, 4), (5, 2), (6, 1), (9, 1)):
        assert annealed(jnp.int32(step), STEPS, 5.0, (0.2, 0.6)) == temperature
    loss = jax.jit(student.loss)
    for step, temperature in ((3, 4.0), (9, 1.0)):
        values, _ = loss(variables, make_batch(teachers(), step), jax.random.key(2))
        assert_close(values, expected(logits, teachers(), temperature))


@pytest.mark.parametrize(("name", "more"), [("mle", 0), ("proxy", 1)])
def test_dirichlet_predicts_its_mean_and_uncertainties(name, more):
    student = create("dirichlet", dirichlet_loss=name)
    variables = initial(student)
    alpha = np.exp(compiled.logits(build_model(), variables, X)) + more
    mean = alpha / alpha.sum(-1, keepdims=True)
    found = jax.jit(student.predict)(variables, X)
    np.testing.assert_allclose(found, mean[None], rtol=1e-5)
    scores = jax.jit(student.uncertainty)(variables, X)
    assert_close(scores["pairwise_kl"], (K - 1) / alpha.sum(-1))
    of_both = scores["expected_entropy"] + scores["mutual_information"]
    assert_close(of_both, scores["predictive_entropy"])


def test_dirichlet_learns_from_perturbed_inputs():
    student = create("dirichlet", dirichlet_loss="proxy")
    variables = initial(student)
    batch = make_batch(teachers())
    perturbed = batch._replace(image=1 - X, perturbed=X)
    loss = jax.jit(lambda *args: student.loss(*args, jax.random.key(2))[0])
    assert_close(loss(variables, perturbed), loss(variables, batch))


def test_an_unknown_loss_of_dirichlet():
    with pytest.raises(
        InputError, match="dirichlet_loss='mel' is not known; accepted: mle, pr"
    ):
        create("dirichlet", dirichlet_loss="mel")
