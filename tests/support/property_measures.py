"""Property checks of prediction sets, groups, selection, and selective measures."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from property_checks import close, covers, finite, jitted

from edp import metrics
from edp.errors import InputError
from edp.metrics import uncertainty, validation

MAX_NLL = -math.log(1e-12)


@covers(metrics.adaptive_ece, metrics.classwise_ece)
def check_calibration_errors(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    num_bins = int(case.rng.integers(1, 20))
    examples = case.rng.permutation(b)
    for score in (metrics.adaptive_ece, metrics.classwise_ece):
        value = score(probs, labels, num_bins)
        assert type(value) is float and 0 <= value <= 1 + 2e-2
        close(score(probs[examples], labels[examples], num_bins), value, 1e-9, 1e-9)
    order = case.rng.permutation(k)
    places = np.argsort(order)[labels]
    close(
        metrics.classwise_ece(probs[:, order], places, num_bins),
        metrics.classwise_ece(probs, labels, num_bins),
        *(1e-9, 1e-9),
    )


@covers(
    metrics.thr_scores,
    metrics.aps_scores,
    metrics.raps_scores,
    metrics.label_scores,
    metrics.conformal_threshold,
    metrics.smallest_calibration_size,
    metrics.prediction_sets,
    metrics.set_scores,
    metrics.coverage_bounds,
)
def check_prediction_sets(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b)[0], case.labels(b)
    coverage = float(case.rng.uniform(0.05, 0.95))
    uniform = case.rng.random(b)
    every = [
        finite(metrics.thr_scores(probs), (b, k), np.float64, 0, 1),
        finite(metrics.aps_scores(probs), (b, k), np.float64, 0, 1, slack=2e-2),
        finite(metrics.aps_scores(probs, uniform), (b, k), np.float64, slack=2e-2),
        finite(metrics.raps_scores(probs), (b, k), np.float64, 0, 1 + k),
    ]
    assert (every[2] <= every[1] + 1e-9).all() and (every[1] <= every[3] + 1e-9).all()
    for scores in every:
        own = finite(metrics.label_scores(scores, labels), (b,), np.float64)
        threshold = metrics.conformal_threshold(own, coverage)
        assert threshold in own or threshold == math.inf
        enough = b >= metrics.smallest_calibration_size(coverage)
        assert math.isfinite(threshold) == enough
        sets = metrics.prediction_sets(scores, threshold, allow_empty=True)
        covered = sets[np.arange(b), labels].mean()
        assert covered >= coverage  # of the calibration examples themselves
        larger = metrics.prediction_sets(scores, threshold)
        assert larger.any(1).all() and (larger >= sets).all()
        result = metrics.set_scores(larger, probs, labels)
        assert result.coverage >= covered and 1 <= result.mean_size <= k
        assert result.class_counts.sum() == result.rank_counts.sum() == b
        sizes = np.nansum(result.rank_counts * np.nan_to_num(result.rank_sizes))
        close(sizes / b, result.mean_size, 1e-9)
    low, high = metrics.coverage_bounds(b, m, coverage)
    assert 0 <= low <= high <= 1


@covers(
    metrics.augrc,
    metrics.risk_at_coverage,
    metrics.coverage_at_risk,
    metrics.least_ambiguous,
)
def check_selective(case):
    b = case.shape[1] + 3
    confidence, correct = case.scores(b), case.rng.integers(0, 2, b)
    risk = 1 - correct.mean()
    value = metrics.augrc(confidence, correct)
    # Between all errors last and all errors first.
    assert risk**2 / 2 - 1e-9 <= value <= risk + 1e-9
    close(metrics.risk_at_coverage(confidence, correct, 1.0), risk, 1e-9, 1e-9)
    assert metrics.coverage_at_risk(confidence, correct, risk) == 1.0
    target = float(case.rng.random())
    coverage = metrics.coverage_at_risk(confidence, correct, target)
    if coverage:
        reached = metrics.risk_at_coverage(confidence, correct, coverage)
        assert reached <= target + 1e-9
    left_out = float(case.rng.uniform(0, 0.99))
    kept = metrics.least_ambiguous(confidence, left_out)
    assert 1 <= len(kept) == b - math.floor(left_out * b)
    rest = np.setdiff1d(np.arange(b), kept)
    assert not len(rest) or confidence[kept].max() <= confidence[rest].min()


@covers(metrics.group_scores, metrics.churn)
def check_groups(case):
    m, b, _ = case.shape
    old, new = case.probs(m, b)[0], case.probs(m, b)[-1]
    labels, groups = case.labels(b), case.rng.integers(3, size=b)
    scores = metrics.group_scores(old, labels, groups)
    shares = scores.counts / b
    close(shares @ scores.accuracy, metrics.accuracy(old, labels), 1e-9, 1e-9)
    close(shares @ scores.nll, metrics.nll(old, labels), 1e-9, 1e-9)
    assert metrics.ece(old, labels) <= shares @ scores.ece + 1e-9  # of finer bins
    worst = scores.worst()
    assert worst["accuracy"] <= metrics.accuracy(old, labels) + 1e-9
    assert worst["nll"] >= metrics.nll(old, labels) - 1e-9
    churn, good, bad = metrics.churn(old, new, labels)
    gain = metrics.accuracy(new, labels) - metrics.accuracy(old, labels)
    close(good - bad, gain, 1e-9, 1e-9)
    assert good + bad <= churn + 1e-9 and churn <= 1


@covers(
    *(metrics.mutual_errors, metrics.choose_by_mutual_errors),
    *(metrics.choose_by_nll, metrics.nlls_in_order),
)
def check_selection(case):
    m, b, _ = case.shape
    probs, labels = case.probs(m, b), case.labels(b)
    errors = finite(metrics.mutual_errors(probs, labels), (m, m), np.float64, 0, 1)
    assert (errors == errors.T).all()
    assert (errors <= np.minimum.outer(np.diag(errors), np.diag(errors)) + 1e-9).all()
    rates = [1 - metrics.accuracy(member, labels) for member in probs]
    close(np.diag(errors), rates, 1e-9, 1e-9)
    for chosen in (
        metrics.choose_by_mutual_errors(errors),
        metrics.choose_by_nll(probs, labels),
    ):
        assert sorted(chosen) == list(range(m))
    close(rates[metrics.choose_by_mutual_errors(errors)[0]], min(rates))
    nlls = [metrics.nll(member, labels) for member in probs]
    close(nlls[metrics.choose_by_nll(probs, labels)[0]], min(nlls))
    in_order = metrics.nlls_in_order(probs, labels, range(m))
    close(in_order[0], nlls[0], 1e-9, 1e-9)
    close(in_order[-1], metrics.nll(np.float64(probs).mean(axis=0), labels), 1e-9, 1e-9)


@covers(metrics.joint_nll, metrics.dyadic_batches)
def check_joint(case):
    m, b, _ = case.shape
    probs, labels = case.probs(m, b), case.labels(b)
    tau, kappa = int(case.rng.integers(1, 12)), int(case.rng.integers(1, b + 1))
    batches = metrics.dyadic_batches(b, num_batches=7, tau=tau, kappa=kappa)
    assert batches.shape == (7, tau) and batches.min() >= 0 and batches.max() < b
    assert all(len(set(batch)) <= kappa for batch in batches.tolist())
    value = metrics.joint_nll(probs, labels, batches)
    assert -1e-1 <= value <= tau * MAX_NLL + 1e-6
    close(metrics.joint_nll(probs[::-1], labels, batches[::-1]), value, 1e-9, 1e-9)
    one = metrics.joint_nll(probs, labels, np.arange(b)[:, None])
    close(one, metrics.nll(np.float64(probs).mean(0), labels), 1e-6, 1e-6)


@covers(uncertainty.logit_scores, uncertainty.all_scores)
def check_logit_scores(case):
    m, b, k = case.shape
    logits = jnp.asarray(case.rng.normal(size=(m, b, k)) * 10, jnp.float32)
    scores = jitted(uncertainty.logit_scores)(logits)
    energy = finite(scores["energy"], (b,), jnp.float32)
    largest = finite(scores["max_logit"], (b,), jnp.float32)
    assert (energy <= largest + 1e-4).all()
    assert (energy >= largest - math.log(k) - 1e-4).all()
    every = jitted(uncertainty.all_scores)(logits)
    close(every["energy"], energy)
    close(every["max_probability"], 1 - np.float64(probs_of(logits)).mean(0).max(-1))


def probs_of(logits):
    probs = np.exp(np.float64(logits))
    return probs / probs.sum(-1, keepdims=True)


@covers(metrics.attribution_diversity)
def check_attribution_diversity(case):
    m, b, k = case.shape
    gradients = case.rng.normal(size=(m, b, k, 2)).astype(np.float32)
    value = metrics.attribution_diversity(gradients)
    most = 0 if m == 1 else m / (m - 1)
    finite(value, (b,), np.float32, 0, most, 1e-5)
    traced = jitted(metrics.attribution_diversity)(jnp.asarray(gradients))
    close(finite(traced, (b,), jnp.float32), value, 1e-3, 1e-4)
    scaled = gradients * np.float32(2.0) ** case.rng.integers(-60, 60, (m, 1, 1, 1))
    close(metrics.attribution_diversity(scaled), value, 1e-3, 1e-4)


@covers(validation.as_members, validation.as_labels)
def check_member_inputs(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b), case.labels(b)
    finite(validation.as_members(probs), (m, b, k), np.float64, 0, 1)
    assert (validation.as_labels(labels, b, k) == labels).all()
    for wrong in (probs[0], np.float64(probs) * np.nan, np.float64(probs) + 1):
        with pytest.raises(InputError, match="probs has"):
            validation.as_members(wrong)
    for wrong in (labels + k, labels - k, labels / 1, labels[1:]):
        with pytest.raises(InputError, match="labels has"):
            validation.as_labels(wrong, b, k)


@covers(
    metrics.arithmetic_mean,
    metrics.geometric_mean,
    metrics.fit_pool,
    metrics.best_pool,
    metrics.member_temperatures,
)
def check_pools(case):
    m, b, k = case.shape
    probs, labels = case.probs(m, b), case.labels(b)
    members = case.rng.permutation(m)
    for pool in (metrics.arithmetic_mean, metrics.geometric_mean):
        pooled = finite(pool(probs), (b, k), np.float64, 0, 1, slack=2e-2)
        close(pool(probs[members]), pooled, 1e-9, 1e-9)
        close(pool(probs[[0, 0]]), pool(probs[:1]), 1e-9, 1e-9)
    nlls = {}
    for name in metrics.POOLS:
        fitted = metrics.fit_pool(name, probs, labels)
        finite(fitted.calibrate(probs), (b, k), np.float64, 0, 1, slack=2e-2)
        nlls[name] = fitted.validation_nll
        # The probability of an example may round to 1, of which 1e-12 is added.
        assert fitted.name == name and -1e-9 <= nlls[name] <= MAX_NLL + 1
    best = metrics.best_pool(probs, labels)
    assert best.validation_nll == min(nlls.values()) == nlls[best.name]
    temperatures = np.array(metrics.member_temperatures(probs, labels))
    finite(temperatures, (m,), np.float64, 0, 100)
    own = metrics.fit_temperature(probs[-1], labels).temperature
    assert temperatures[-1] == own
    close(metrics.member_temperatures(probs[members], labels), temperatures[members])


@covers(metrics.soft_label_scores)
def check_soft_labels(case):
    m, b, k = case.shape
    probs, soft = case.probs(m, b)[0], case.probs(m, b)[0][::-1]
    scores = metrics.soft_label_scores(probs, soft)
    assert scores["soft_nll"] >= scores["soft_kl"] - 1e-9
    assert -2e-2 <= scores["soft_kl"] <= MAX_NLL + 1 and 0 <= scores["soft_tv"] <= 1.02
    own = metrics.soft_label_scores(probs, probs)
    assert own["soft_tv"] == 0 and abs(own["soft_kl"]) < 1e-12
    labels = case.labels(b)
    close(
        metrics.soft_label_scores(probs, np.eye(k)[labels])["soft_nll"],
        metrics.nll(probs, labels),
        *(2e-2, 1e-6),
    )
