"""Dirichlet distributions against SciPy in float64, and at the limits of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from edp.students import dirichlet_math

N, K = 50, 5
RNG = np.random.default_rng(0)


def concentrations(scale, shift=0.0):
    """Returns ln α in float32 and α in float64, [N, K]."""
    log_alpha = np.float32(shift + scale * RNG.normal(size=(N, K)))
    return jnp.asarray(log_alpha), np.exp(np.float64(log_alpha))


def close(actual, expected, rtol=1e-5):
    """Asserts equality relative to 1 + |expected|."""
    error = np.abs(np.float64(actual) - expected) / (1 + np.abs(expected))
    assert error.max() < rtol, error.max()


def log_beta_function(alpha):
    return special.gammaln(alpha).sum(-1) - special.gammaln(alpha.sum(-1))


def kl_by_definition(a, b):
    means = special.digamma(a) - special.digamma(a.sum(-1, keepdims=True))
    cross = ((a - b) * means).sum(-1)
    return log_beta_function(b) - log_beta_function(a) + cross


@pytest.mark.parametrize(("scale", "shift"), [(0.5, -3), (2, 1), (1, 8), (1, 12)])
def test_density_divergence_and_its_gradient_equal_scipy(scale, shift):
    log_a, a = concentrations(scale, shift)
    log_b, b = concentrations(scale, shift)
    p = RNG.dirichlet(np.ones(K), size=N)
    expected = [
        stats.dirichlet.logpdf(q / q.sum(), c) for q, c in zip(p, a, strict=True)
    ]
    log_p = jnp.log(jnp.float32(p))
    close(jax.jit(dirichlet_math.log_density)(log_a, log_p), np.array(expected), 1e-4)
    close(
        jax.jit(dirichlet_math.kl_divergence)(log_a, log_b),
        kl_by_definition(a, b),
        2e-5,
    )
    total = lambda x: dirichlet_math.kl_divergence(x, log_b).sum()  # noqa: E731
    of_total = special.polygamma(1, a.sum(-1, keepdims=True))
    of_total = of_total * (a - b).sum(-1, keepdims=True)
    expected = a * ((a - b) * special.polygamma(1, a) - of_total)
    close(jax.jit(jax.grad(total))(log_a), expected, 1e-4)


def test_uncertainties_equal_those_of_samples_and_of_scipy():
    log_alpha, alpha = concentrations(2, 1)
    scores = jax.jit(dirichlet_math.uncertainties)(log_alpha)
    mean = alpha / alpha.sum(-1, keepdims=True)
    close(dirichlet_math.mean_probs(log_alpha), mean, 1e-6)
    close(scores["max_probability"], 1 - mean.max(-1), 1e-6)
    close(scores["predictive_entropy"], special.entr(mean).sum(-1), 1e-6)
    expected = special.digamma(alpha.sum(-1) + 1)
    expected = expected - (mean * special.digamma(alpha + 1)).sum(-1)
    close(scores["expected_entropy"], expected, 1e-6)
    close(scores["mutual_information"], special.entr(mean).sum(-1) - expected, 1e-6)
    close(scores["pairwise_kl"], (K - 1) / alpha.sum(-1))
    # Against Monte Carlo estimates, with few probabilities near 0.
    p, q = RNG.dirichlet([2.0, 3.0, 4.0], size=(2, 200_000))
    scores = jax.jit(dirichlet_math.uncertainties)(jnp.log(jnp.array([2.0, 3.0, 4.0])))
    assert special.entr(p).sum(-1).mean() == pytest.approx(
        float(scores["expected_entropy"]), abs=3e-3
    )
    assert special.rel_entr(p, q).sum(-1).mean() == pytest.approx(
        float(scores["pairwise_kl"]), abs=6e-3
    )


def test_likelihood_by_hand():
    logits, members = RNG.normal(size=(N, K)), 3 * RNG.normal(size=(3, N, K))
    for temperature in (1.0, 4.0):
        alpha = np.exp(logits / temperature)
        p = (1 - 1e-4) * special.softmax(members / temperature, axis=-1) + 1e-4 / K
        density = [
            [
                stats.dirichlet.logpdf(p[m, n] / p[m, n].sum(), alpha[n])
                for m in range(3)
            ]
            for n in range(N)
        ]
        actual = jax.jit(dirichlet_math.negative_log_likelihood)(
            jnp.float32(logits), jnp.float32(members), temperature
        )
        close(actual, -np.mean(density, axis=1))


def test_proxy_target_and_loss_by_hand():
    logits, members = RNG.normal(size=(N, K)), 3 * RNG.normal(size=(3, N, K))
    p = special.softmax(members, axis=-1)
    mean = p.mean(0)
    divergence = special.rel_entr(mean, p).sum(-1).mean(0)
    precision = (K - 1) / (2 * divergence + 1e-4)
    beta = mean * precision[:, None] + 1
    log_beta = jax.jit(dirichlet_math.proxy_target)(jnp.float32(members))
    close(jnp.exp(log_beta), beta)
    np.testing.assert_allclose(beta.sum(-1), precision + K)  # the divisor of the loss
    alpha = np.exp(logits) + 1
    expected = kl_by_definition(alpha, beta) / beta.sum(-1)
    close(
        jax.jit(dirichlet_math.proxy_loss)(jnp.float32(logits), jnp.float32(members)),
        expected,
        1e-4,
    )


def test_the_proxy_loss_is_minimal_at_its_target():
    members = jnp.float32(3 * RNG.normal(size=(3, N, K)))
    beta = np.exp(np.float64(dirichlet_math.proxy_target(members)))
    at_target = jnp.float32(np.log(beta - 1))  # α = 1 + exp(z) = β
    loss = lambda z: dirichlet_math.proxy_loss(z, members).sum()  # noqa: E731
    loss = jax.jit(jax.value_and_grad(loss))
    value, gradient = loss(at_target)
    assert abs(value) < 1e-4
    assert np.abs(gradient).max() < 1e-5
    for step in (-0.1, 0.1):
        assert loss(at_target.at[:, 0].add(step))[0] > value + 1e-4


def test_logits_of_any_size_have_finite_losses_gradients_and_uncertainties():
    pattern = jnp.array([[1.0, 0, 0], [1, 0.5, -1], [1, 1, 1], [-1, -1, -1]])
    z = jnp.concatenate([size * pattern for size in (1.0, 100.0, 1e4)])
    members = jnp.stack([z, z[::-1]])

    @jax.jit
    def values(z):
        results = []
        for fn in (
            lambda z: dirichlet_math.negative_log_likelihood(z, members, 1.0),
            lambda z: dirichlet_math.proxy_loss(z, members),
        ):
            results += [fn(z), jax.grad(lambda z, fn=fn: fn(z).sum())(z)]
        alphas = dirichlet_math.bounded(z), dirichlet_math.one_more(z)
        means = [dirichlet_math.mean_probs(log_alpha) for log_alpha in alphas]
        return results, means, [dirichlet_math.uncertainties(a) for a in alphas]

    results, means, scores = values(z)
    assert all(np.isfinite(result).all() for result in results)
    for of_each in scores:
        for name, score in of_each.items():
            assert (np.isfinite(score) & (score >= 0)).all(), name
    for mean in means:  # the largest logit keeps the largest mean
        assert mean.reshape(3, 4, 3)[:, :2].argmax(-1).tolist() == [[0, 0]] * 3
    inside = jnp.array([[-79.0, 5.0, 19.0]])
    np.testing.assert_array_equal(dirichlet_math.bounded(inside), inside)
