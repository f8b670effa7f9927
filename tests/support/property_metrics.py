"""Property checks of the metrics."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from property_checks import close, covers, finite, jitted

from edp import metrics
from edp.errors import InputError
from edp.metrics import uncertainty, validation

MAX_NLL = -math.log(1e-12)
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
        # Low-precision rows may sum to slightly more than 1.
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
    """Returns whether any row has several most probable classes."""
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
    # The second 1e-12 inside a logarithm matters where p is as small.
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
    # Low-precision rows sum to 1 approximately.
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


@covers(validation.as_probs, validation.as_probs_and_labels, validation.as_scores)
def check_inputs(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    finite(validation.as_probs(probs), (b, k), np.float64, 0, 1)
    rows, classes = validation.as_probs_and_labels(probs, labels)
    assert rows.dtype == np.float64 and (classes == labels).all()
    finite(validation.as_scores("confidence", case.scores(b)), (b,), np.float64)
    for wrong in (np.float64(probs) * 2, np.float64(probs) * np.nan, probs[0]):
        with pytest.raises(InputError, match="probs has"):
            validation.as_probs(wrong)
    for wrong in (labels + k, labels - k, labels / 1, labels[1:]):
        with pytest.raises(InputError, match="labels has"):
            validation.as_probs_and_labels(probs, wrong)
    for wrong in ([], [np.nan], [np.inf], [[1.0]]):
        with pytest.raises(InputError, match="confidence has"):
            validation.as_scores("confidence", wrong)


@covers(metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr)
def check_detection(case):
    m, b, _ = case.shape
    inside, outside = case.scores(b), case.scores(b + m)
    for score in (metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr):
        value = score(inside, outside)
        assert type(value) is float and 0 <= value <= 1 + 1e-9
        close(score(inside[::-1], case.rng.permutation(outside)), value, 1e-9, 1e-9)
        # Only their order matters.
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
