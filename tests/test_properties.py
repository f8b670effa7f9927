"""What holds for any input of the losses, metrics and perturbations, however extreme.

Every public function has a check here, of drawn shapes, dtypes and values. A new one
without a check fails `test_every_public_function_has_a_check`.
"""

import functools
import importlib
import inspect
import math
import pkgutil
import types
from collections.abc import Callable, Iterator

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from property_cases import IMAGE, Case, cases

from edp import (
    dirichlet,
    discrepancy,
    losses,
    metrics,
    perturbations,
    uncertainty,
)
from edp.errors import InputError
from edp.metrics import inputs
from edp.perturbations import geometry, quantities

PACKAGES = (losses, metrics, perturbations, dirichlet, discrepancy, uncertainty)
QUICK, LONG = 3, 350  # examples of each function
RADIUS = math.sqrt(math.prod(IMAGE))  # of a ball, by its step size
MAX_NLL = -math.log(1e-12)
CHECKS: dict[Callable, Callable[[Case], None]] = {}


def covers(*functions: Callable):
    """Registers a check of these functions."""

    def register(check):
        CHECKS.update(dict.fromkeys(functions, check))
        return check

    return register


def public_functions() -> Iterator[Callable]:
    for package in PACKAGES:
        names = [package.__name__]
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            names.append(f"{package.__name__}.{module.name}")
        for name in names:
            module = importlib.import_module(name)
            for key, value in vars(module).items():
                own = inspect.isfunction(value) and value.__module__ == name
                if own and not key.startswith("_"):
                    yield value


@functools.cache
def jitted(function, *static):
    return jax.jit(function, static_argnames=static)


def finite(value, shape, dtype=None, least=-math.inf, most=math.inf, slack=1e-6):
    """The value as float64, once its shape, dtype and range are as they should be."""
    assert value.shape == tuple(shape)
    if dtype is not None:
        assert value.dtype == dtype
    value = np.float64(value)
    assert np.isfinite(value).all()
    assert value.size == 0 or (least - slack <= value.min()), value.min()
    assert value.size == 0 or (value.max() <= most + slack), value.max()
    return value


def close(actual, expected, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(np.float64(actual), np.float64(expected), rtol, atol)


# --- Losses -----------------------------------------------------------------


@covers(losses.log_probs, losses.mean_log_probs)
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
    if m == 1:
        close(pooled, logs[0])


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
    gradient = jitted(_gradient_of_cross_entropy)(z, labels)
    finite(gradient, z.shape, z.dtype, least=-1, most=1, slack=2 * case.eps)


def _gradient_of_cross_entropy(z, labels):
    return jax.grad(lambda z: losses.cross_entropy(z, labels).sum())(z)


@covers(losses.kl_divergence, losses.distillation)
def check_distillation(case):
    m, b, k = case.shape
    target, z, tau = case.logits(m, b), case.logits(1, b)[0], case.temperature
    target = jitted(losses.mean_log_probs)(target, tau)
    logs = jitted(losses.log_probs)(z, tau)
    divergence = jitted(losses.kl_divergence)(target, logs)
    # Of logits that are 2e4 apart, the tenth of a unit is all that float32 holds.
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


# --- Dirichlet distributions, discrepancy -----------------------------------


@covers(dirichlet.bounded, dirichlet.one_more, dirichlet.mean_probs)
def check_concentrations(case):
    _, b, k = case.shape
    z = case.logits(1, b)[0]
    for name, least in (("bounded", -80), ("one_more", 0)):
        log_alpha = jitted(getattr(dirichlet, name))(z)
        finite(log_alpha, z.shape, jnp.float32, least, most=21)
        mean = jitted(dirichlet.mean_probs)(log_alpha)
        close(finite(mean, z.shape, jnp.float32, 0, 1).sum(-1), 1)
        order = case.rng.permutation(k)
        close(jitted(getattr(dirichlet, name))(z[:, order]), log_alpha[:, order])
    once = jitted(dirichlet.bounded)(z)
    close(jitted(dirichlet.bounded)(once), once, atol=1e-5 + case.rounding)


@covers(dirichlet.log_density, dirichlet.kl_divergence)
def check_dirichlet_divergence(case):
    _, b, k = case.shape
    log_alpha, log_beta = (dirichlet.bounded(z) for z in case.logits(2, b))
    log_p = jnp.maximum(losses.log_probs(case.logits(1, b)[0]), -30)
    finite(jitted(dirichlet.log_density)(log_alpha, log_p), (b,), jnp.float32)
    divergence = jitted(dirichlet.kl_divergence)(log_alpha, log_beta)
    size = np.abs(np.float64(divergence)) + k * 80
    finite(divergence / size, (b,), jnp.float32, least=0, slack=1e-5)
    close(jitted(dirichlet.kl_divergence)(log_alpha, log_alpha), np.zeros(b), 0, 1e-3)
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet.kl_divergence)(log_alpha[:, order], log_beta[:, order])
    close((permuted - divergence) / size, np.zeros(b), 0, 1e-5)


@covers(dirichlet.negative_log_likelihood)
def check_likelihood(case):
    m, b, k = case.shape
    z, members, t = case.logits(1, b)[0], case.logits(m, b), case.temperature
    loss = jitted(dirichlet.negative_log_likelihood)(z, members, t)
    finite(loss, (b,), jnp.float32)
    size = np.abs(np.float64(loss)) + k * 80
    order = case.rng.permutation(k)
    for other in (
        jitted(dirichlet.negative_log_likelihood)(z, members[::-1], t),
        jitted(dirichlet.negative_log_likelihood)(z[:, order], members[..., order], t),
    ):
        close((other - loss) / size, np.zeros(b), 0, 1e-5)
    gradient = jitted(_gradient_of_likelihood)(z, members, t)
    finite(gradient.astype(jnp.float32), z.shape)


def _gradient_of_likelihood(z, members, t):
    wide = z.astype(jnp.float32)
    return jax.grad(lambda z: dirichlet.negative_log_likelihood(z, members, t).sum())(
        wide
    )


@covers(dirichlet.proxy_target, dirichlet.proxy_loss)
def check_proxy(case):
    m, b, k = case.shape
    z, members = case.logits(1, b)[0], case.logits(m, b)
    target = jitted(dirichlet.proxy_target)(members)
    finite(target, (b, k), jnp.float32, least=0)  # no concentration is below 1
    close(jitted(dirichlet.proxy_target)(members[::-1]), target, 1e-3)
    loss = jitted(dirichlet.proxy_loss)(z, members)
    finite(loss, (b,), jnp.float32, least=0, slack=1e-3)
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet.proxy_loss)(z[:, order], members[..., order])
    close(permuted, loss, 1e-3, 1e-3)
    gradient = jitted(_gradient_of_proxy)(z, members)
    finite(gradient, z.shape)


def _gradient_of_proxy(z, members):
    return jax.grad(lambda z: dirichlet.proxy_loss(z, members).sum())(
        z.astype(jnp.float32)
    )


@covers(dirichlet.uncertainties)
def check_dirichlet_uncertainties(case):
    _, b, k = case.shape
    log_alpha = dirichlet.bounded(case.logits(1, b)[0])
    scores = jitted(dirichlet.uncertainties)(log_alpha)
    entropy = math.log(k)
    most = {"max_probability": 1 - 1 / k, "pairwise_kl": math.inf}
    for name, score in scores.items():
        finite(score, (b,), jnp.float32, 0, most.get(name, entropy), slack=1e-5 * k)
    total = scores["expected_entropy"] + scores["mutual_information"]
    close(total, scores["predictive_entropy"])
    order = case.rng.permutation(k)
    permuted = jitted(dirichlet.uncertainties)(log_alpha[:, order])
    for name, score in scores.items():
        close(permuted[name], score, 1e-3, 1e-4)


@covers(discrepancy.maximum_mean_discrepancy)
def check_discrepancy(case):
    m, b, _ = case.shape
    a, other = case.logits(m, b)[:, 0], case.logits(m + 1, 1)[:, 0]
    distance = jitted(discrepancy.maximum_mean_discrepancy)(a, other)
    finite(distance, (), jnp.float32, 0, 8, slack=1e-5)
    close(jitted(discrepancy.maximum_mean_discrepancy)(other, a), distance)
    order = case.rng.permutation(a.shape[-1])
    permuted = jitted(discrepancy.maximum_mean_discrepancy)(
        a[::-1][:, order], other[:, order]
    )
    close(permuted, distance, 1e-3, 1e-4)
    same = jitted(discrepancy.maximum_mean_discrepancy)(a, a[::-1])
    close(same, 0, 0, 1e-5)


# --- Metrics of probabilities -----------------------------------------------

LABELLED = (metrics.nll, metrics.brier, metrics.ece)


@covers(metrics.accuracy, metrics.nll, metrics.example_nll, metrics.brier, metrics.ece)
def check_scores(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    ranges = {
        metrics.accuracy: (0, 1),
        metrics.nll: (0, MAX_NLL),
        metrics.brier: (0, 2),
        metrics.ece: (0, 1),
    }
    values = {}
    for score, (least, most) in ranges.items():
        values[score] = score(probs, labels)
        assert type(values[score]) is float
        # Rows of few bits may sum to a little more than 1.
        finite(np.float64(values[score]), (), None, least, most, slack=2e-2)
    of_each = metrics.example_nll(probs, labels)
    close(finite(of_each, (b,), np.float64).mean(), values[metrics.nll])
    examples, order = case.rng.permutation(b), case.rng.permutation(k)
    places = np.argsort(order)[labels]
    for score in ranges:
        close(score(probs[examples], labels[examples]), values[score], 1e-9, 1e-9)
        if score in (metrics.nll, metrics.brier) or not _ties(probs):
            close(score(probs[:, order], places), values[score], 1e-9, 1e-9)


def _ties(probs) -> bool:
    """Whether the most probable class of a row is not the only one."""
    return bool(((probs == probs.max(-1, keepdims=True)).sum(-1) > 1).any())


@covers(metrics.reliability_bins)
def check_reliability(case):
    m, b, _ = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    num_bins = int(case.rng.integers(1, 20))
    bins = metrics.reliability_bins(probs, labels, num_bins)
    assert bins.counts.sum() == b and (bins.counts >= 0).all()
    for values in bins[1:]:
        finite(values, (num_bins,), np.float64, 0, 1, slack=1e-2)
        assert (values[bins.counts == 0] == 0).all()
    accuracy = (bins.counts * bins.accuracy).sum() / b
    close(accuracy, metrics.accuracy(probs, labels), 1e-9, 1e-9)
    gaps = np.abs(bins.accuracy - bins.confidence)
    close((bins.counts * gaps).sum() / b, metrics.ece(probs, labels, num_bins))


@covers(metrics.fit_temperature, metrics.apply_temperature)
def check_temperature(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    fit = metrics.fit_temperature(probs, labels)
    assert 0.05 <= fit.temperature <= 20 and fit.at_bound in (True, False)
    as_they_are = metrics.apply_temperature(probs, 1.0)
    fitted = metrics.apply_temperature(probs, fit.temperature)
    for tempered in (as_they_are, fitted):
        close(finite(tempered, (b, k), np.float64, 0, 1).sum(-1), 1, 1e-9)
    assert (fitted.argmax(-1) == np.float64(probs).argmax(-1)).all() or _ties(fitted)
    rows = np.float64(probs)
    close(as_they_are, rows / rows.sum(-1, keepdims=True), 1e-6, 1e-9)
    best = metrics.nll(fitted, labels)
    # The 1e-12 inside logarithms is added once more; it weighs where p is as small.
    assert best <= metrics.nll(as_they_are, labels) + 1e-6
    order = case.rng.permutation(k)
    places = np.argsort(order)[labels]
    again = metrics.fit_temperature(probs[:, order], places)
    tempered = metrics.apply_temperature(probs[:, order], again.temperature)
    close(metrics.nll(tempered, places), best, 1e-6, 1e-6)
    hotter = metrics.apply_temperature(probs, 2 * case.temperature)
    flat = metrics.predictive_entropy(hotter)
    sharp = metrics.predictive_entropy(
        metrics.apply_temperature(probs, case.temperature)
    )
    assert (flat >= sharp - 1e-9).all()


DIVERSITY = {
    metrics.pairwise_kl: 2 * MAX_NLL,
    metrics.disagreement_rate: 1.0,
    metrics.mutual_information: None,  # log min(M, K)
    metrics.predictive_entropy: None,  # log K
    metrics.variance: 1.0,
}


@covers(*DIVERSITY)
def check_diversity(case):
    m, b, k = case.shape
    probs = case.probs(m, b)
    most = {
        metrics.mutual_information: math.log(min(m, k)),
        metrics.predictive_entropy: math.log(k),
    }
    order = case.rng.permutation(k)
    # Rows of few bits sum to 1 only about.
    slack = max(1e-5, 4 * case.eps * math.log(k))
    for function, limit in DIVERSITY.items():
        value = function(probs)
        assert isinstance(value, np.ndarray)
        dtype = None if function is metrics.disagreement_rate else np.float32
        finite(value, (b,), dtype, 0, most.get(function, limit), slack)
        traced = jitted(function)(jnp.asarray(probs))
        close(finite(traced, (b,), jnp.float32), value, 1e-3, 1e-4)
        close(function(probs[::-1]), value, 1e-3, 1e-4)
        if function is not metrics.disagreement_rate or not _ties(probs):
            close(function(probs[..., order]), value, 1e-3, 1e-4)
        if m == 1 and function is not metrics.predictive_entropy:
            close(value, np.zeros(b), 0, 1e-6)
    close(metrics.predictive_entropy(probs[0]), metrics.predictive_entropy(probs[:1]))


@covers(uncertainty.scores)
def check_uncertainty(case):
    m, b, k = case.shape
    probs = jnp.asarray(case.probs(m, b))
    scores = jitted(uncertainty.scores)(probs)
    assert ("pairwise_kl" in scores) == (m > 1)
    for name, score in scores.items():
        most = 1 if name == "max_probability" else 2 * MAX_NLL
        finite(score, (b,), None, 0, most, slack=max(1e-5, 4 * case.eps * math.log(k)))


@covers(inputs.as_probs, inputs.as_probs_and_labels, inputs.as_scores)
def check_inputs(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    finite(inputs.as_probs(probs), (b, k), np.float64, 0, 1)
    rows, classes = inputs.as_probs_and_labels(probs, labels)
    assert rows.dtype == np.float64 and (classes == labels).all()
    finite(inputs.as_scores("confidence", case.scores(b)), (b,), np.float64)
    for wrong in (np.float64(probs) * 2, np.float64(probs) * np.nan, probs[0]):
        with pytest.raises(InputError, match="probs must be"):
            inputs.as_probs(wrong)
    for wrong in (labels + k, labels - k, labels / 1, labels[1:]):
        with pytest.raises(InputError, match="labels must"):
            inputs.as_probs_and_labels(probs, wrong)
    for wrong in ([], [np.nan], [np.inf], [[1.0]]):
        with pytest.raises(InputError, match="confidence must be"):
            inputs.as_scores("confidence", wrong)


# --- Metrics of rankings, statistics ----------------------------------------


@covers(metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr)
def check_detection(case):
    m, b, _ = case.shape
    inside, outside = case.scores(b), case.scores(b + m)
    for score in (metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr):
        value = score(inside, outside)
        assert type(value) is float and 0 <= value <= 1 + 1e-9
        close(score(inside[::-1], case.rng.permutation(outside)), value, 1e-9, 1e-9)
        # Only their order counts.
        squeezed = (np.arctan(np.float64(x) / 1e4) for x in (inside, outside))
        close(score(*squeezed), value, 1e-9, 1e-9)
    close(metrics.auroc(inside, outside) + metrics.auroc(outside, inside), 1)


@covers(metrics.risk_coverage, metrics.aurc)
def check_risk_coverage(case):
    b = case.shape[1] + 3
    confidence, correct = case.scores(b), case.rng.integers(0, 2, b)
    coverage, risk = metrics.risk_coverage(confidence, correct)
    close(finite(coverage, (b,), np.float64, 0, 1), np.arange(1, b + 1) / b)
    finite(risk, (b,), np.float64, 0, 1)
    close(risk[-1], 1 - correct.mean())
    order = case.rng.permutation(b)
    area = metrics.aurc(confidence, correct)
    assert 0 <= area <= 1
    close(metrics.aurc(confidence[order], correct[order]), area, 1e-9, 1e-9)
    close(area, risk.mean(), 1e-9, 1e-9)


@covers(metrics.deep_ensemble_equivalent)
def check_deep_ensemble_equivalent(case):
    values = np.float64(case.scores(case.shape[1] + 1))
    best = np.minimum.accumulate(values)
    previous = math.inf
    for value in np.sort(np.concatenate([values, np.float64(case.scores(3))])):
        size = metrics.deep_ensemble_equivalent(value, values)
        assert 0 <= size <= min(len(values), previous)  # worse ones are worth less
        assert (size == 0) == (value > best[0])
        previous = size
    assert metrics.deep_ensemble_equivalent(best[-1], values) == len(values)


@covers(metrics.mean_and_error, metrics.paired_p_value)
def check_statistics(case):
    values = case.scores(case.shape[1] + 1)
    mean, error = metrics.mean_and_error(values)
    assert values.min() - 1e-9 <= mean <= values.max() + 1e-9
    assert error >= 0 and math.isfinite(error)
    assert metrics.mean_and_error(values[:1]) == (float(values[0]), None)
    close(metrics.mean_and_error(values[::-1]), (mean, error), 1e-9, 1e-9)
    p = metrics.paired_p_value(values)
    assert p is None or 0 <= p <= 1
    again = metrics.paired_p_value(-values[::-1])
    assert again is None if p is None else math.isclose(again, p, rel_tol=1e-6)


@covers(metrics.bootstrap_intervals)
def check_intervals(case):
    m, b, _ = case.shape
    values = np.stack([np.float64(case.scores(b)) for _ in range(m)], axis=1)
    low, high = metrics.bootstrap_intervals(values, num_resamples=50, level=0.9)
    slack = 1e-9 * (1 + np.abs(values).max())
    finite(low, (m,), np.float64), finite(high, (m,), np.float64)
    assert (values.min(0) - slack <= low).all() and (low <= high).all()
    assert (high <= values.max(0) + slack).all()
    shifted = metrics.bootstrap_intervals(values + 3, num_resamples=50, level=0.9)
    close(shifted - 3, [low, high], 1e-6, 1e-6)


# --- What members disagree on -----------------------------------------------


@covers(*perturbations.QUANTITIES.values(), quantities.random_output)
def check_quantities(case):
    m, b, k = case.shape
    z, tau, key = case.logits(m, b), case.temperature, case.key
    order = case.rng.permutation(k)
    drawn = (quantities.projection, quantities.random_output)
    for function in (*perturbations.QUANTITIES.values(), quantities.random_output):
        cotangent = jitted(function)(key, z, tau)
        values = finite(cotangent, z.shape, jnp.float32, -1, 1)
        close(values.sum(-1), np.zeros((m, b)), 0, 1e-4)  # a softmax has no more
        largest = np.abs(values).max((0, 2))
        assert ((largest == 0) | (largest > 1 - 1e-6)).all()
        if function is not quantities.random_output and case.logits_of == "equal":
            assert (values == 0).all()
        if function not in drawn and case.is_smooth:
            close(jitted(function)(key, z[::-1], tau), cotangent[::-1], 1e-2, 1e-3)
            permuted = jitted(function)(key, z[..., order], tau)
            close(permuted, cotangent[..., order], 1e-2, 1e-3)


@covers(quantities.difference_of_two)
def check_difference(case):
    _, b, k = case.shape
    z = case.logits(2, b)
    difference, scale = jitted(quantities.difference_of_two)(z)
    most = 2 * (k - 1)  # of the top class, whose entry is minus the sum of the others
    finite(difference, (b, k), jnp.float32, -most, most, slack=1e-5 * k)
    finite(scale, (b, 1), jnp.float32)
    log_p = np.float64(jitted(losses.log_probs)(z, 1.0))
    p, same = np.exp(log_p), 8 * np.finfo(np.float32).eps * np.abs(log_p).max()
    actual = np.float64(difference) * np.exp(np.float64(scale))
    close(actual, p[0] - p[1], 1e-3, 1e-5 + same)
    swapped, _ = jitted(quantities.difference_of_two)(z[::-1])
    close(swapped, -difference)


# --- Perturbations ----------------------------------------------------------


def linear_members(case, num_members, batch):
    """(x -> [M, B, K], its arrays): linear in x, around the case's logits."""
    size = math.prod(IMAGE)
    base = case.logits(num_members, batch)
    weights = case.rng.normal(size=(num_members, size, case.shape[-1]))
    weights = weights * case.rng.choice([0.0, 1.0, 1e4])
    return base, jnp.asarray(np.float32(weights), case.dtype)


def logits_of(arrays):
    base, weights = arrays
    return lambda x: (
        base
        + jnp.einsum(
            "bd,mdk->mbk", x.reshape(len(x), -1).astype(weights.dtype), weights
        )
    )


def check_moved(case, x, moved, share=1.0):
    """Of the shape and dtype of x, in [0, 1] and, to rounding, in its ball."""
    values = finite(moved, x.shape, x.dtype, 0, 1, slack=0)
    distance = np.linalg.norm((values - np.float64(x)).reshape(len(x), -1), axis=1)
    radius = case.step_size * RADIUS * np.asarray(share)
    assert (distance <= radius * (1 + 1e-5) + RADIUS * case.eps).all()
    if case.step_size == 0:
        assert (values == np.float64(x)).all()


@covers(perturbations.none, perturbations.gaussian, perturbations.mixup)
def check_blind(case):
    x = case.images(case.shape[1])
    assert perturbations.none(case.key, None, x, step_size=case.step_size) is x
    moved = jitted(_gaussian)(case.key, x, case.step_size)
    finite(moved, x.shape, x.dtype, 0, 1, slack=0)
    if case.step_size == 0:
        np.testing.assert_array_equal(moved, x)
    alpha = case.rng.choice([1e-3, 0.2, 1.0, 50.0]) if case.thorough else 1.0
    mixed = jitted(_mixup, "alpha")(case.key, x, float(alpha))
    values = finite(mixed, x.shape, x.dtype, 0, 1, slack=0)
    least, most = (np.float64(f(np.asarray(x), axis=0)) for f in (np.min, np.max))
    slack = case.eps
    assert (least - slack <= values).all() and (values <= most + slack).all()
    if len(x) == 1:
        close(values, x, 0, slack)


def _gaussian(key, x, step_size):
    return perturbations.gaussian(key, None, x, step_size=step_size)


def _mixup(key, x, alpha):
    return perturbations.mixup(key, None, x, mixup_alpha=alpha)


@covers(perturbations.ods, perturbations.conf_ods)
def check_ods(case):
    x, tau = case.images(case.shape[1]), case.temperature
    arrays = linear_members(case, 1, len(x))
    for name in ("ods", "conf_ods"):
        moved = jitted(_ods, "name")(case.key, x, arrays, case.step_size, tau, name)
        logits = logits_of(arrays)(x)[0]
        confidence = np.exp(np.float64(losses.log_probs(logits, tau))).max(-1)
        is_sure = np.isfinite(np.float64(logits)).all(-1)
        is_scaled = is_sure & (name == "conf_ods")
        check_moved(case, x, moved, np.where(is_scaled, confidence + 1e-3, 1))
        if not np.any(np.float64(arrays[1])):  # nothing depends on x
            np.testing.assert_array_equal(moved, x)


def _ods(key, x, arrays, step_size, temperature, name):
    function = getattr(perturbations, name)
    return function(
        key,
        lambda x: logits_of(arrays)(x)[0],
        x,
        step_size=step_size,
        temperature=temperature,
    )


@covers(perturbations.disagreement)
def check_disagreement(case):
    m, b, k = case.shape
    x, tau = case.images(b), case.temperature
    arrays = base, weights = linear_members(case, m, b)
    order = case.rng.permutation(k)
    quantity = str(case.rng.choice(list(perturbations.QUANTITIES)))
    num_steps = int(case.rng.choice([1, 2]))

    def move(arrays):
        step = jitted(_disagreement, "quantity", "num_steps")
        return step(case.key, x, arrays, case.step_size, tau, quantity, num_steps)

    moved = move(arrays)
    check_moved(case, x, moved)
    if m == 1:
        np.testing.assert_array_equal(moved, x)
    if case.is_smooth and quantity != "projection" and np.abs(weights).max() < 100:
        slack = 1e-2 * case.step_size + 1e-6
        close(move((base[::-1], weights[::-1])), moved, 0, slack)
        close(move((base[..., order], weights[..., order])), moved, 0, slack)


def _disagreement(key, x, arrays, step_size, temperature, quantity, num_steps):
    return perturbations.disagreement(
        key,
        logits_of(arrays),
        x,
        step_size=step_size,
        temperature=temperature,
        quantity=quantity,
        num_steps=num_steps,
    )


@covers(perturbations.tdiv_sdiv)
def check_tdiv_sdiv(case):
    x = case.images(case.shape[1])
    arrays = linear_members(case, 2, len(x))
    own = linear_members(case, 2, len(x))
    for student in (None, own, arrays):
        moved = jitted(_tdiv_sdiv)(case.key, x, arrays, student, case.step_size)
        check_moved(case, x, moved)


def _tdiv_sdiv(key, x, arrays, student, step_size):
    def pairs(x):
        return logits_of(arrays)(x), None if student is None else logits_of(student)(x)

    return perturbations.tdiv_sdiv(key, pairs, x, step_size=step_size)


def make_teachers(arrays):
    """A record like `edp.ensemble.Teachers`."""

    def all_logits(x, members_at_once=None):
        del members_at_once
        return logits_of(arrays)(x)

    return types.SimpleNamespace(
        num_members=len(arrays[0]),
        all_logits=all_logits,
        member_logits=lambda m, x: all_logits(x)[m],
    )


@covers(perturbations.create_perturbation, perturbations.methods)
def check_created(case):
    m, b, _ = case.shape
    x, arrays = case.images(b), linear_members(case, m, b)
    names = ["ods", "disagreement"]
    if case.thorough:
        names = case.rng.choice(list(perturbations.PERTURBATIONS), 2)
    for name in (names[0], "+".join(names)):
        found = perturbations.methods(name)
        wanted = [perturbations.PERTURBATIONS[part] for part in name.split("+")]
        assert found == wanted
        moved = jitted(_created, "name")(case.key, x, arrays, case.step_size, name)
        finite(moved, x.shape, x.dtype, 0, 1, slack=0)
        if not {"gaussian", "mixup"} & set(name.split("+")):
            check_moved(case, x, moved, len(found))
    with pytest.raises(InputError, match=r"perturbation='\w+\+other' is not known"):
        perturbations.methods(f"{names[0]}+other")


def _created(key, x, arrays, step_size, name):
    perturb = perturbations.create_perturbation(
        {"perturbation": name, "step_size": step_size, "quantity": "variance"}
    )
    return perturb(key, x, make_teachers(arrays))


@covers(
    perturbations.no_members,
    perturbations.random_member,
    perturbations.members,
    perturbations.member_pair,
    perturbations.check_random_members,
)
def check_views(case):
    m, b, k = case.shape
    x, arrays = case.images(b), linear_members(case, m, b)
    every = np.float64(logits_of(arrays)(x))
    teachers = make_teachers(arrays)

    def are_of_members(found):
        rows = np.float64(found).reshape(-1, b, k)
        assert all((row == every).all((1, 2)).any() for row in rows)
        return len(rows)

    if not np.isfinite(every).all():  # weights too large for float16
        return
    assert perturbations.no_members(case.key, teachers, None) is None
    one = perturbations.random_member(case.key, teachers, None)(x)
    assert one.shape == (b, k) and are_of_members(one) == 1
    assert are_of_members(perturbations.members(case.key, teachers, None)(x)) == m
    pair, none = perturbations.member_pair(case.key, teachers, None)(x)
    assert are_of_members(pair) == 2 and none is None
    _, own = perturbations.member_pair(case.key, teachers, logits_of(arrays))(x)
    np.testing.assert_array_equal(own, pair)
    for number in range(-1, m + 2):
        if 2 <= number <= m:
            perturbations.check_random_members("random_members", number, m)
            view = perturbations.members(
                case.key, teachers, None, random_members=number
            )
            assert are_of_members(view(x)) == number
        else:
            with pytest.raises(InputError, match=f"random_members={number} must be"):
                perturbations.check_random_members("random_members", number, m)


# --- Geometry ---------------------------------------------------------------


@covers(geometry.radius, geometry.per_example, geometry.unit)
def check_unit(case):
    b = case.shape[1]
    x = case.images(b)
    close(geometry.radius(x, case.step_size), case.step_size * RADIUS)
    assert geometry.per_example(jnp.zeros(b), x).shape == (b, 1, 1, 1)
    scale = case.rng.choice([0.0, 1e-30, 1e-7, 1.0, 1e4], size=(b, 1, 1, 1))
    direction = jnp.asarray(np.float32(scale * case.rng.normal(size=x.shape)), x.dtype)
    worst = float(case.rng.choice([np.nan, np.inf, -np.inf, 0.0]))
    for given in (direction, direction.at[0, 0, 0, 0].set(worst)):
        scaled = finite(jitted(geometry.unit)(given), x.shape, jnp.float32, -1, 1)
        length = np.linalg.norm(scaled.reshape(b, -1), axis=1)
        rows = np.float64(given).reshape(b, -1)
        usable = np.isfinite(rows).all(1) & (np.abs(rows).max(1) > 0)
        close(length, usable, 0, 1e-5)


@covers(geometry.within_ball, geometry.settle)
def check_settle(case):
    x = case.images(case.shape[1])
    radius = geometry.radius(x, case.step_size)
    offset = case.rng.normal(size=x.shape) * case.rng.choice([0.0, 1e-3, 1.0, 1e4])
    far = x.astype(jnp.float32) + np.float32(offset)
    inside = jitted(geometry.within_ball)(far, x, radius)
    values = finite(inside, x.shape, jnp.float32)
    distance = (values - np.float64(x)).reshape(len(x), -1)
    distance = np.linalg.norm(distance, axis=1)
    assert (distance <= radius * (1 + 1e-5) + 1e-5).all()
    check_moved(case, x, jitted(geometry.settle, "clip")(inside, x, clip=(0.0, 1.0)))
    free = jitted(geometry.settle, "clip")(inside, x, clip=None)
    close(free, inside, case.eps, 1e-6)


# --- All of them ------------------------------------------------------------


EACH = pytest.mark.parametrize("check", dict.fromkeys(CHECKS.values()))


def test_every_public_function_has_a_check():
    functions = list(public_functions())
    assert not [f"{f.__module__}.{f.__name__}" for f in functions if f not in CHECKS]
    assert set(functions) == set(CHECKS)
    assert len(functions) > 50 and len(set(CHECKS.values())) * LONG >= 10_000


@EACH
def test_it_holds_for_a_few(check):
    run(check, QUICK, thorough=False)


@pytest.mark.long
@EACH
def test_it_holds_for_many(check):
    run(check, LONG, thorough=True)
    jax.clear_caches()  # each check compiles hundreds of programs: too many for all


def run(check, max_examples, *, thorough):
    """Runs a check on as many cases, the same ones every time."""
    seen = 0

    @hypothesis.settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases(thorough))
    def holds(case):
        nonlocal seen
        seen += 1
        check(case)

    holds()
    assert seen >= max_examples
