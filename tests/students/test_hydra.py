"""Tests of Hydra students against formulas and hand-computed values."""

import functools

import compiled
import jax
import jax.numpy as jnp
import numpy as np
from small_students import (
    LABEL,
    STEPS,
    B,
    K,
    M,
    X,
    assert_close,
    build_model,
    create,
    gradient,
    initial,
    make_batch,
    teachers,
)

from edp import distill
from edp.ensemble import Teachers
from edp.runtime import optimizers
from edp.students.hydra import head_similarity


def train(student, num_steps):
    """Returns the states of the first few training steps."""
    config = {
        **{"schedule": "constant", "learning_rate": 0.1, "num_epochs": 1},
        **{"momentum": 0.9, "nesterov": False, "weight_decay": 0.01},
    }
    tx = optimizers.create_optimizer(config, STEPS, student.rule)
    teachers_fn = lambda x: teachers()  # noqa: E731
    step = jax.jit(
        functools.partial(
            distill.distill_step,
            student=student,
            teachers=Teachers(M, teachers_fn, None),
            perturb=lambda key, x, teachers, predict: x,
            tx=tx,
        )
    )
    state = distill.create_state(student, tx, jax.random.key(1), X[:1])
    states = [state]
    for _ in range(num_steps):
        state, _ = step(state, {"image": X, "label": LABEL}, jax.random.key(2))
        states.append(state)
    return states


def test_hydra_trains_as_single_until_its_heads_separate():
    states = train(create("hydra"), 6)
    for alone, state in zip(train(create("single"), 4), states, strict=False):
        # For four of ten steps, the body and each head equal those of `single`.
        heads = state.params["head"]
        for leaf in jax.tree.leaves(heads):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
        first = {**state.params, "head": jax.tree.map(lambda x: x[0], heads)}
        assert_close(first, alone.params)
    kernels = states[5].params["head"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_equal_heads_and_teachers_are_a_single_student():
    student, single = create("hydra"), create("single")
    variables = initial(student)
    plain = initial(single)  # from the same key
    assert_close(
        jax.tree.map(lambda x: x[0], variables["params"]["head"]),
        plain["params"]["head"],
    )
    probs = student.predict(variables, X)
    assert probs.shape == (M, B, K)
    for member in probs:
        np.testing.assert_allclose(member, single.predict(plain, X)[0], rtol=1e-5)
    same = jnp.broadcast_to(teachers()[0], (M, B, K))
    key = jax.random.key(2)
    loss, expected = (jax.jit(s.loss) for s in (student, single))
    for step in (0, STEPS - 1):
        batch = make_batch(same, step)
        assert_close(loss(variables, batch, key)[0], expected(plain, batch, key)[0])


def test_separate_heads_match_one_to_one_by_formula():
    student = create("hydra", alpha=1.0)
    variables = initial(student, spread=0.3)
    loss, grads = gradient(student)(variables, make_batch(teachers(), STEPS - 1))
    model = build_model(num_heads=M)
    logits, _ = compiled.train_pass(model, variables, X)
    p, q = (np.exp(jax.nn.log_softmax(z / 2.0)) for z in (teachers(), logits))
    kl = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(loss, 4 * kl.mean(), rtol=1e-4)
    # d/dz of 4 · mean KL is 2 (q - p) / (M B), summed over the batch.
    by_hand = 2 * (q - p).sum(axis=1) / (M * B)
    np.testing.assert_allclose(grads["head"]["bias"], by_hand, rtol=1e-3, atol=1e-6)


def test_the_terms_of_hydra_plus_by_formula():
    plain = create("hydra", alpha=1.0)
    plus = create("hydra", alpha=1.0, hydra_mean_share=0.25, hydra_diversity=0.5)
    variables = initial(plain, spread=0.3)
    batch = make_batch(teachers(), STEPS - 1)
    key = jax.random.key(2)
    expected, _ = jax.jit(plain.loss)(variables, batch, key)
    found, (_, metrics) = jax.jit(plus.loss)(variables, batch, key)
    model = build_model(num_heads=M)
    logits, _ = compiled.train_pass(model, variables, X)
    p, q = (np.exp(jax.nn.log_softmax(z / 2.0)).mean(0) for z in (teachers(), logits))
    of_mean = 4 * (p * (np.log(p) - np.log(q))).sum(-1)
    kernels = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    similarity = 0
    for head in kernels:
        for w, mean in zip(head.T, kernels.mean(axis=0).T, strict=True):
            cosine = w @ mean / np.linalg.norm(w) / np.linalg.norm(mean)
            similarity += (1 + cosine) / 2
    assert similarity < M * K - 0.1
    np.testing.assert_allclose(metrics["head_similarity"], similarity, rtol=1e-4)
    expected = 0.75 * expected + 0.25 * of_mean + 0.5 * similarity
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # While the heads train as one, nothing is added.
    variables, batch = initial(plain), make_batch(teachers(), 0)
    both = (student.loss(variables, batch, key)[0] for student in (plain, plus))
    assert_close(*both)


def test_the_similarity_of_two_heads_by_hand():
    orthogonal = jnp.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    # Each has a cosine of 1 / √2 with the mean.
    found = head_similarity(orthogonal)
    np.testing.assert_allclose(found, 1 + 1 / np.sqrt(2), rtol=1e-6)
    equal = jnp.broadcast_to(jnp.array([[3.0, 1.0], [4.0, 1.0]]), (3, 2, 2))
    np.testing.assert_allclose(head_similarity(equal), 3 * 2, rtol=1e-6)
    assert np.isfinite(jax.grad(head_similarity)(jnp.zeros((2, 3, 4)))).all()
