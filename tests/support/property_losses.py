"""Property checks of the losses and of the Dirichlet functions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from property_checks import close, covers, finite, jitted

from edp import losses
from edp.errors import InputError
from edp.students import dirichlet_math


@covers(losses.log_probs, losses.mean_log_probs, losses.geometric_mean_log_probs)
def check_log_probs(case):
    m, b, _ = case.shape
    z, tau = case.logits(m, b), case.temperature
    logs = jitted(losses.log_probs)(z, tau)
    probs = np.exp(finite(logs, z.shape, jnp.float32, most=0, slack=case.rounding))
    close(probs.sum(-1), 1, atol=case.rounding)
    order = case.rng.permutation(z.shape[-1])
    permuted = jitted(losses.log_probs)(z[..., order], tau)
    close(permuted, logs[..., order], atol=case.rounding)
    divided = jitted(losses.log_probs)(z.astype(jnp.float32) / tau, 1.0)
    close(divided, logs, atol=case.rounding)
    pooled = jitted(losses.mean_log_probs)(z, tau)
    finite(pooled, z.shape[1:], jnp.float32, most=0, slack=case.rounding)
    close(np.exp(np.float64(pooled)), probs.mean(0), atol=case.rounding)
    close(jitted(losses.mean_log_probs)(z[::-1], tau), pooled, atol=case.rounding)
    geometric = jitted(losses.geometric_mean_log_probs)(z, tau)
    finite(geometric, z.shape[1:], jnp.float32, most=0, slack=case.rounding)
    close(
        jitted(losses.geometric_mean_log_probs)(z[::-1], tau),
        geometric,
        atol=case.rounding,
    )
    if m == 1:
        close(pooled, logs[0], atol=case.rounding)
        close(geometric, logs[0], atol=case.rounding)


@covers(losses.cross_entropy)
def check_cross_entropy(case):
    m, b, k = case.shape
    z, labels = case.logits(m, b), jnp.asarray(case.labels(b))
    loss = jitted(losses.cross_entropy)(z, labels)
    finite(loss, (m, b), jnp.float32, least=0)
    logs = np.asarray(jitted(losses.log_probs)(z, 1.0))
    close(loss, -logs[:, np.arange(b), labels])
    order = case.rng.permutation(k)
    places = jnp.asarray(np.argsort(order)[labels])
    close(jitted(losses.cross_entropy)(z[..., order], places), loss)
    one_hot = jax.nn.one_hot(labels, k)
    close(jitted(losses.cross_entropy)(z, one_hot), loss)
    gradient = jitted(_gradient_of_cross_entropy)(z, labels)
    finite(gradient, z.shape, z.dtype, least=-1, most=1, slack=2 * case.eps)


@covers(losses.accuracy)
def check_accuracy(case):
    m, b, k = case.shape
    z, labels = case.logits(m, b), jnp.asarray(case.labels(b))
    found = jitted(losses.accuracy)(z, labels)
    assert found.shape == (m, b) and found.dtype == bool
    np.testing.assert_array_equal(found, np.argmax(z, axis=-1) == labels)
    close(jitted(losses.accuracy)(z, jax.nn.one_hot(labels, k)), found)
    close(jitted(losses.accuracy)(z, jnp.full((b, k), 1 / k)), 1 / k)


@covers(losses.check_classes)
def check_number_of_classes(case):
    m, b, _ = case.shape
    z = case.logits(m, b)
    losses.check_classes(z)
    for one in (z[..., :1], z[0, 0, :1]):
        with pytest.raises(InputError, match=r"accepted: .* of at least 2 classes"):
            losses.check_classes(one)


@covers(losses.check_labels)
def check_label_range(case):
    _, b, k = case.shape
    labels = case.labels(b)
    losses.check_labels(jnp.asarray(labels), k)
    for wrong in (-1, k, 255 + k):
        labels[case.rng.integers(b)] = wrong
        with pytest.raises(InputError, match=f"labels has .*accepted: .*to {k - 1}"):
            losses.check_labels(labels, k)


def _gradient_of_cross_entropy(z, labels):
    return jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(z)


@covers(losses.kl_divergence, losses.distillation)
def check_distillation(case):
    m, b, k = case.shape
    target, z, tau = case.logits(m, b), case.logits(1, b)[0], case.temperature
    target = jitted(losses.mean_log_probs)(target, tau)
    logs = jitted(losses.log_probs)(z, tau)
    divergence = jitted(losses.kl_divergence)(target, logs)
    # float32 rounds differences of logits that are 2e4 apart.
    finite(divergence, (b,), jnp.float32, least=0, slack=1e-2)
    finite(jitted(losses.kl_divergence)(logs, target), (b,), least=0, slack=1e-2)
    close(jitted(losses.kl_divergence)(logs, logs), np.zeros(b), 0, 0)
    loss = jitted(losses.distillation)(target, z, tau)
    finite(loss, (b,), jnp.float32, least=0, slack=1e-2 * tau**2)
    close(loss, tau**2 * divergence, atol=tau**2 * case.rounding)
    order = case.rng.permutation(k)
    permuted = jitted(losses.distillation)(target[:, order], z[:, order], tau)
    close(permuted, loss, atol=tau**2 * (1e-4 + case.rounding))
    gradient = jitted(_gradient_of_distillation)(target, z, tau)
    finite(gradient, z.shape, z.dtype, least=-tau, most=tau, slack=4 * tau * case.eps)
    certain = jnp.where(jnp.arange(k) == case.labels(b)[:, None], 0, -jnp.inf)
    hard = jitted(losses.kl_divergence)(certain, logs)
    close(hard, -logs[certain == 0], atol=case.rounding)


def _gradient_of_distillation(target, z, tau):
    return jax.grad(lambda z: losses.distillation(target, z, tau).sum())(z)


@covers(dirichlet_math.bounded, dirichlet_math.one_more, dirichlet_math.mean_probs)
def check_concentrations(case):
    _, b, k = case.shape
    z = case.logits(1, b)[0]
    for name, least in (("bounded", -80), ("one_more", 0)):
        log_alpha = jitted(getattr(dirichlet_math, name))(z)
        finite(log_alpha, z.shape, jnp.float32, least, most=21)
        mean = jitted(dirichlet_math.mean_probs)(log_alpha)
        close(finite(mean, z.shape, jnp.float32, 0, 1).sum(-1), 1)
        order = case.rng.permutation(k)
        close(jitted(getattr(dirichlet_math, name))(z[:, order]), log_alpha[:, order])
    once = jitted(dirichlet_math.bounded)(z)
    close(jitted(dirichlet_math.bounded)(once), once, atol=1e-5 + case.rounding)


@covers(dirichlet_math.log_density, dirichlet_math.kl_divergence)
def check_dirichlet_divergence(case):
    _, b, k = case.shape
    log_alpha, log_beta = (dirichlet_math.bounded(z) for z in case.logits(2, b))
    log_p = jnp.maximum(losses.log_probs(case.logits(1, b)[0]), -30)
    finite(jitted(dirichlet_math.log_density)(log_alpha, log_p), (b,), jnp.float32)
    divergence = jitted(dirichlet_math.kl_divergence)(log_alpha, log_beta)
    size = np.abs(np.float64(divergence)) + k * 80
    finite(divergence / size, (b,), jnp.float32, least=0, slack=1e-5)
    close(
        jitted(dirichlet_math.kl_divergence)(log_alpha, log_alpha), np.zeros(b), 0, 1e-3
    )
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet_math.kl_divergence)(
        log_alpha[:, order], log_beta[:, order]
    )
    close((permuted - divergence) / size, np.zeros(b), 0, 1e-5)


@covers(dirichlet_math.negative_log_likelihood)
def check_likelihood(case):
    m, b, k = case.shape
    z, members, t = case.logits(1, b)[0], case.logits(m, b), case.temperature
    loss = jitted(dirichlet_math.negative_log_likelihood)(z, members, t)
    finite(loss, (b,), jnp.float32)
    size = np.abs(np.float64(loss)) + k * 80
    order = case.rng.permutation(k)
    for other in (
        jitted(dirichlet_math.negative_log_likelihood)(z, members[::-1], t),
        jitted(dirichlet_math.negative_log_likelihood)(
            z[:, order], members[..., order], t
        ),
    ):
        close((other - loss) / size, np.zeros(b), 0, 1e-5)
    gradient = jitted(_gradient_of_likelihood)(z, members, t)
    finite(gradient.astype(jnp.float32), z.shape)


def _gradient_of_likelihood(z, members, t):
    wide = z.astype(jnp.float32)
    return jax.grad(
        lambda z: dirichlet_math.negative_log_likelihood(z, members, t).sum()
    )(wide)


@covers(dirichlet_math.proxy_target, dirichlet_math.proxy_loss)
def check_proxy(case):
    m, b, k = case.shape
    z, members = case.logits(1, b)[0], case.logits(m, b)
    target = jitted(dirichlet_math.proxy_target)(members)
    finite(target, (b, k), jnp.float32, least=0)  # no concentration is below 1
    close(jitted(dirichlet_math.proxy_target)(members[::-1]), target, 1e-3)
    loss = jitted(dirichlet_math.proxy_loss)(z, members)
    finite(loss, (b,), jnp.float32, least=0, slack=1e-3)
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet_math.proxy_loss)(z[:, order], members[..., order])
    close(permuted, loss, 1e-3, 1e-3)
    gradient = jitted(_gradient_of_proxy)(z, members)
    finite(gradient, z.shape)


def _gradient_of_proxy(z, members):
    return jax.grad(lambda z: dirichlet_math.proxy_loss(z, members).sum())(
        z.astype(jnp.float32)
    )


@covers(dirichlet_math.uncertainties)
def check_dirichlet_uncertainties(case):
    _, b, k = case.shape
    log_alpha = dirichlet_math.bounded(case.logits(1, b)[0])
    scores = jitted(dirichlet_math.uncertainties)(log_alpha)
    entropy = math.log(k)
    most = {"max_probability": 1 - 1 / k, "pairwise_kl": math.inf}
    for name, score in scores.items():
        finite(score, (b,), jnp.float32, 0, most.get(name, entropy), slack=1e-5 * k)
    total = scores["expected_entropy"] + scores["mutual_information"]
    close(total, scores["predictive_entropy"])
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet_math.uncertainties)(log_alpha[:, order])
    for name, score in scores.items():
        close(permuted[name], score, 1e-3, 1e-4)


@covers(losses.maximum_mean_discrepancy)
def check_discrepancy(case):
    m, b, _ = case.shape
    a, other = case.logits(m, b)[:, 0], case.logits(m + 1, 1)[:, 0]
    distance = jitted(losses.maximum_mean_discrepancy)(a, other)
    finite(distance, (), jnp.float32, 0, 8, slack=1e-5)
    close(jitted(losses.maximum_mean_discrepancy)(other, a), distance)
    order = case.rng.permutation(a.shape[-1])
    permuted = jitted(losses.maximum_mean_discrepancy)(
        a[::-1][:, order], other[:, order]
    )
    close(permuted, distance, 1e-3, 1e-4)
    same = jitted(losses.maximum_mean_discrepancy)(a, a[::-1])
    close(same, 0, 0, 1e-5)
