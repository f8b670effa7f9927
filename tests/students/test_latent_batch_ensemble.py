"""Tests of a latent BatchEnsemble against formulas and hand-computed values."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
from small_students import (
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

from edp import models
from edp.models.layers import Dense
from edp.runtime import optimizers


def test_the_average_of_two_members_weights_by_hand():
    layer = Dense(features=2, num_members=2, shared_bias=True)
    params = {
        "kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        "bias": jnp.array([0.5, -0.5]),
        "r": jnp.array([[1.0, 2.0], [3.0, 4.0]]),  # the mean is 2, 3
        "s": jnp.array([[1.0, -1.0], [0.0, 3.0]]),  # the mean is 0.5, 1
    }
    plain = models.average_factors({"layer": params})["layer"]
    assert plain.keys() == {"kernel", "bias"}
    # [[1 · 2 · 0.5, 2 · 2 · 1], [3 · 3 · 0.5, 4 · 3 · 1]]
    np.testing.assert_allclose(plain["kernel"], [[1.0, 4.0], [4.5, 12.0]])
    x = jnp.array([[1.0, 1.0]])
    out = Dense(features=2).apply({"params": plain}, x)
    np.testing.assert_allclose(out, [[6.0, 15.5]])
    # Member 1 by itself, its bias shared: [3, 4] · [[1, 2], [3, 4]] · [0, 3] + bias.
    rows = layer.apply({"params": params}, jnp.repeat(x, 2, axis=0))
    np.testing.assert_allclose(rows[1], [0.5, 65.5])


def test_factors_of_one_are_the_plain_network():
    latent, single = create("latent_batch_ensemble"), create("single")
    variables = initial(latent)
    finished = latent.finalise(variables)
    shapes = jax.eval_shape(single.init, jax.random.key(0), X[:1])
    assert jax.tree.structure(finished) == jax.tree.structure(shapes)
    assert jax.tree.map(jnp.shape, finished) == jax.tree.map(jnp.shape, shapes)
    plain = compiled.logits(build_model(), finished, X)
    settings = {"num_members": M, "factor_init": "ones", "shared_bias": True}
    members = compiled.logits(build_model(**settings), variables, X)
    assert members.shape == (M, B, K)
    for logits in members:
        np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        *(jax.jit(s.predict)(finished, X) for s in (latent, single)), atol=1e-7
    )


def test_a_finished_latent_batch_ensemble_has_the_averaged_weights():
    latent, single = create("latent_batch_ensemble"), create("single")
    variables = initial(latent, spread=0.3)
    finished = jax.jit(latent.finalise)(variables)
    for name in ("conv", "head"):
        layer = variables["params"][name]
        assert np.ptp(layer["r"], axis=0).min() > 0.001  # the members differ
        kernel = np.array(layer["kernel"])
        for c in range(kernel.shape[-2]):
            for f in range(kernel.shape[-1]):
                mean_r = sum(layer["r"][m, c] for m in range(M)) / M
                mean_s = sum(layer["s"][m, f] for m in range(M)) / M
                kernel[..., c, f] *= mean_r * mean_s
        np.testing.assert_allclose(
            finished["params"][name]["kernel"], kernel, rtol=1e-5
        )
    probs = latent.predict(finished, X)
    assert probs.shape == (1, B, K) and latent.inference_cost == 1
    np.testing.assert_allclose(probs, single.predict(finished, X), atol=1e-6)
    # The same in training, such as in a `validate` of `fit`.
    np.testing.assert_allclose(latent.predict(variables, X), probs, atol=1e-6)


def test_subnetworks_diverge_towards_their_teachers():
    student = create("latent_batch_ensemble")
    variables = initial(student)
    loss_and_grad = gradient(student)
    _, grads = loss_and_grad(variables, make_batch(teachers()))
    _, reversed_grads = loss_and_grad(variables, make_batch(teachers()[::-1]))
    for name in ("r", "s"):
        factors = grads["head"][name]
        assert np.abs(factors[0] - factors[1]).max() > 1e-3
        assert_close(factors[::-1], reversed_grads["head"][name])


def test_factors_decay_to_one_and_learn_as_members_alone_by_hand():
    config = {
        **{"schedule": "constant", "learning_rate": 0.1, "num_epochs": 1},
        **{"momentum": 0.0, "nesterov": False, "weight_decay": 0.01},
    }
    student = create("latent_batch_ensemble")
    tx = optimizers.create_optimizer(config, 5, student.rule)
    params = {"kernel": jnp.array(2.0), "r": jnp.array([[3.0], [0.5]])}
    grads = {"kernel": jnp.array(1.0), "r": jnp.array([[1.0], [-1.0]])}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.01 * 2), rtol=1e-6)
    # M = 2 times (gradient + 0.01 / M (r - 1)).
    by_hand = [[-0.1 * 2 * (1 + 0.005 * 2)], [-0.1 * 2 * (-1 - 0.005 * 0.5)]]
    np.testing.assert_allclose(updates["r"], by_hand, rtol=1e-6)

    def decay(params):  # the documented regulariser
        away = (jnp.square(1 - params["r"])).sum()
        return 0.01 * (params["kernel"] ** 2 / 2 + away / (2 * 2))

    grads = jax.tree.map(jnp.add, grads, jax.grad(decay)(params))
    expected = {"kernel": -0.1 * grads["kernel"], "r": -0.1 * 2 * grads["r"]}
    assert_close(updates, expected)
