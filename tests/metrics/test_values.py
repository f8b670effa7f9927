"""Metrics against hand-computed values, identities, SciPy and scikit-learn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics

from edp import metrics
from edp.errors import InputError

LOG = math.log

# Predicted classes 0, 1, 2, 0: right, wrong, right, wrong.
PROBS = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]]
LABELS = [0, 2, 2, 1]


def random_probs(*shape, seed=0, scale=2.0):
    logits = scale * np.random.default_rng(seed).normal(size=shape)
    probs = np.exp(logits)
    return probs / probs.sum(-1, keepdims=True)


def random_labels(probs, seed=0):
    """Samples one label per row from its probabilities."""
    uniform = np.random.default_rng(seed).random((len(probs), 1))
    return np.minimum((probs.cumsum(1) < uniform).sum(1), probs.shape[1] - 1)


# Accuracy and proper scores.


def test_scores_by_hand():
    assert metrics.accuracy(PROBS, LABELS) == 0.5
    # The labels' probabilities are 0.7, 0.3, 0.4, 0.25; their product is 0.021.
    assert metrics.nll(PROBS, LABELS) == pytest.approx(-LOG(0.021) / 4, abs=1e-11)
    # 0.09 + 0.04 + 0.01 = 0.14      0.01 + 0.36 + 0.49 = 0.86
    # 0.09 + 0.09 + 0.36 = 0.54      0.25 + 0.5625 + 0.0625 = 0.875
    assert metrics.brier(PROBS, LABELS) == pytest.approx(2.415 / 4, abs=1e-12)


def test_scores_of_certain_predictions():
    certain = [[1.0, 0.0], [0.0, 1.0]]
    assert metrics.brier(certain, [0, 1]) == 0.0
    assert metrics.brier(certain, [1, 0]) == 2.0
    assert metrics.nll(certain, [0, 1]) == pytest.approx(0.0, abs=1e-11)
    assert metrics.nll(certain, [1, 0]) == pytest.approx(12 * LOG(10))  # -log 1e-12


def test_soft_label_scores_by_hand():
    probs, soft = [[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]
    found = metrics.soft_label_scores(probs, soft)
    # Cross-entropies log 2 and (log 4 + log 4/3) / 2; entropies of q 0 and log 2.
    nll = (LOG(2) + (LOG(4) + LOG(4 / 3)) / 2) / 2
    expected = {"soft_nll": nll, "soft_kl": nll - LOG(2) / 2, "soft_tv": 0.375}
    assert found == pytest.approx(expected, abs=1e-9)
    same = metrics.soft_label_scores(soft, soft)
    assert same["soft_kl"] == same["soft_tv"] == 0
    with pytest.raises(InputError, match=r"soft_labels are \[2, 2\]"):
        metrics.soft_label_scores(PROBS[:2], soft)


def test_ties_predict_the_first_class():
    assert metrics.accuracy([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], [0, 2]) == 0.5


def test_float32_and_jax_input_is_scored_in_float64():
    probs = random_probs(50, 4).astype(np.float32)
    labels = random_labels(probs)
    for score in (metrics.nll, metrics.brier, metrics.ece, metrics.accuracy):
        expected = score(probs.astype(np.float64), labels)
        assert score(jnp.asarray(probs), jnp.asarray(labels)) == expected
        assert type(expected) is float


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([0.5, 0.5], [0], r"probs has shape .* accepted: \[N, K\]"),
        (np.zeros((0, 3)), np.zeros(0, int), r"probs has shape .* accepted: \[N, K\]"),
        ([[2.0, -1.0]], [0], "accepted: rows of probabilities"),
        ([[3.0, 1.0]], [0], "accepted: rows of probabilities"),
        ([[math.nan, 1.0]], [0], "accepted: rows of probabilities"),
        ([[0.5, 0.5]], [0, 1], "accepted: 1 integers"),
        ([[0.5, 0.5]], [0.0], "accepted: 1 integers"),
        ([[0.5, 0.5]], [2], "labels has values from .* accepted: classes 0 to 1"),
        ([[0.5, 0.5]], [-1], "labels has values from .* accepted: classes 0 to 1"),
    ],
)
def test_invalid_predictions_are_refused(probs, labels, message):
    for score in (metrics.accuracy, metrics.nll, metrics.brier, metrics.ece):
        with pytest.raises(InputError, match=message):
            score(probs, labels)
    with pytest.raises(InputError, match=message):
        metrics.fit_temperature(probs, labels)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1.1, 0.0),  # Worse than DE-1.
        (1.0, 1.0),
        (0.9, 1.5),
        (0.8, 2.0),
        (0.7, 3.0),  # A plateau from DE-3 to DE-4 (0.75 does not improve on 0.7).
        (0.675, 4.5),
        (0.65, 5.0),
        (0.1, 5.0),  # Better than DE-5.
    ],
)
def test_deep_ensemble_equivalent(value, size):
    ensemble = [1.0, 0.8, 0.7, 0.75, 0.65]
    assert metrics.deep_ensemble_equivalent(value, ensemble) == pytest.approx(size)


def test_deep_ensemble_equivalent_of_short_and_flat_ensembles():
    assert metrics.deep_ensemble_equivalent(0.6, [0.5]) == 0.0
    assert metrics.deep_ensemble_equivalent(0.5, [0.5]) == 1.0
    assert metrics.deep_ensemble_equivalent(0.4, [0.5]) == 1.0
    # As good as the largest ensemble; the second is equally good.
    assert metrics.deep_ensemble_equivalent(0.5, [1.0, 0.5, 0.5]) == 3.0
    for value, ensemble in ((math.nan, [0.5]), (0.5, []), (0.5, [math.inf])):
        with pytest.raises(InputError, match="value"):
            metrics.deep_ensemble_equivalent(value, ensemble)


# Calibration.


def test_reliability_bins_and_ece_by_hand():
    bins = metrics.reliability_bins(PROBS, LABELS, num_bins=2)
    # Confidences 0.7 (right), 0.6 (wrong), 0.4 (right), 0.5 (wrong); 0.5, on the
    # edge, belongs to (0, 0.5].
    np.testing.assert_array_equal(bins.counts, [2, 2])
    np.testing.assert_allclose(bins.confidence, [0.45, 0.65])
    np.testing.assert_allclose(bins.accuracy, [0.5, 0.5])
    # 2/4 |0.5 - 0.45| + 2/4 |0.5 - 0.65| = 0.025 + 0.075
    assert metrics.ece(PROBS, LABELS, num_bins=2) == pytest.approx(0.1)


def test_empty_bins_and_certain_predictions():
    bins = metrics.reliability_bins([[1.0, 0.0], [0.45, 0.55]], [0, 0])
    # Of 15 bins, 1 is in (14/15, 1] and 0.55 = 8.25/15 in (8/15, 9/15].
    np.testing.assert_array_equal(np.nonzero(bins.counts)[0], [8, 14])
    assert bins.confidence[[8, 14]].tolist() == [0.55, 1.0]
    assert bins.accuracy[[8, 14]].tolist() == [0.0, 1.0]
    assert bins.confidence.sum() == 1.55  # The empty bins hold 0, not NaN.
    assert metrics.ece([[1.0, 0.0], [0.45, 0.55]], [0, 0]) == pytest.approx(0.55 / 2)
    # A float32 softmax may round to above 1.
    above = metrics.reliability_bins([[1.0 + 1e-7, 0.0]], [0])
    assert above.counts.tolist() == [0] * 14 + [1]
    with pytest.raises(InputError, match="num_bins=0 is too small; accepted: int"):
        metrics.ece(PROBS, LABELS, num_bins=0)


def test_apply_temperature_by_hand():
    # Odds of 4 become 4^(1/2) = 2 and 4^2 = 16.
    np.testing.assert_allclose(
        metrics.apply_temperature([[0.8, 0.2]], 2.0), [[2 / 3, 1 / 3]], atol=1e-11
    )
    np.testing.assert_allclose(
        metrics.apply_temperature([[0.8, 0.2]], 0.5), [[16 / 17, 1 / 17]], atol=1e-11
    )
    probs = random_probs(100, 10)
    np.testing.assert_allclose(
        metrics.apply_temperature(probs, 1.0), probs, rtol=0, atol=1e-9
    )
    # Far below the range of fits, exp(log(0.5) / 1e-4) alone would underflow.
    cold = metrics.apply_temperature([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]], 1e-4)
    np.testing.assert_array_equal(cold, [[0, 1, 0], [0, 0, 1]])
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"temperature=.* accepted: positive"):
            metrics.apply_temperature(probs, temperature)


def test_fit_temperature_by_hand():
    # All rows give class 0 odds of 9, and it is right 7 times of 10: the best
    # temperature takes the odds to 7/3, so log 9 / T = log(7/3).
    fit = metrics.fit_temperature([[0.9, 0.1]] * 10, [0] * 7 + [1] * 3)
    assert fit.temperature == pytest.approx(LOG(9) / LOG(7 / 3), rel=1e-9)
    assert fit.at_bound is False


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 7.0])
def test_fit_temperature_undoes_a_known_temperature(temperature):
    # Labels in exact proportion to the probabilities: no temperature improves them.
    probs = np.repeat([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], 10, axis=0)
    labels = [0] * 5 + [1] * 3 + [2] * 2 + [0] * 1 + [1] * 6 + [2] * 3
    tempered = metrics.apply_temperature(probs, 1 / temperature)
    fit = metrics.fit_temperature(tempered, labels)
    assert fit.temperature == pytest.approx(temperature, rel=1e-6)
    assert not fit.at_bound
    restored = metrics.apply_temperature(tempered, fit.temperature)
    np.testing.assert_allclose(restored, probs, atol=1e-6)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_fit_temperature_agrees_with_minimising_the_nll(sharpness):
    probs = random_probs(500, 8, seed=3)
    labels = random_labels(probs)
    probs = metrics.apply_temperature(probs, 1 / sharpness)

    def objective(log_temperature):
        tempered = metrics.apply_temperature(probs, math.exp(log_temperature))
        return metrics.nll(tempered, labels)

    best = scipy.optimize.minimize_scalar(
        objective, bounds=(LOG(0.05), LOG(20)), method="bounded"
    )
    fit = metrics.fit_temperature(probs, labels)
    assert fit.temperature == pytest.approx(math.exp(best.x), rel=1e-4)
    assert objective(LOG(fit.temperature)) <= best.fun + 1e-12


def test_fit_temperature_reports_a_bound():
    probs = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert metrics.fit_temperature(probs, [0, 1]) == (0.05, True)  # All right.
    assert metrics.fit_temperature(probs, [1, 0]) == (20.0, True)  # All wrong.
    # With certain predictions, some of them wrong, the NLL is finite.
    certain = [[1.0, 0.0]] * 10
    assert metrics.fit_temperature(certain, [0] * 5 + [1] * 5) == (20.0, True)
    # Temperature has no effect on uniform predictions.
    assert metrics.fit_temperature([[0.25] * 4] * 3, [0, 1, 2]) == (1.0, False)


# Diversity.


def test_diversity_by_hand():
    probs = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    # KL(p1 || p2) = 0.5 log(0.5/0.9) + 0.5 log(0.5/0.1) = 0.5 log(25/9) = log(5/3)
    # KL(p2 || p1) = 0.9 log(0.9/0.5) + 0.1 log(0.1/0.5)
    kl = (LOG(5 / 3) + 0.9 * LOG(1.8) + 0.1 * LOG(0.2)) / 2
    np.testing.assert_allclose(metrics.pairwise_kl(probs), [kl], atol=1e-10)
    pooled = -0.7 * LOG(0.7) - 0.3 * LOG(0.3)
    members = (LOG(2) - 0.9 * LOG(0.9) - 0.1 * LOG(0.1)) / 2
    np.testing.assert_allclose(metrics.predictive_entropy(probs), [pooled], atol=1e-10)
    np.testing.assert_allclose(
        metrics.mutual_information(probs), [pooled - members], atol=1e-10
    )
    # For one predictor: the entropy of its rows.
    np.testing.assert_allclose(
        metrics.predictive_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])),
        [LOG(2), 0.0],
        atol=1e-10,
    )


def test_disagreement_rate_by_hand():
    # Example 0: classes 0, 0, 1 differ in 2 of 3 pairs; 1: all alike; 2: all differ.
    classes = np.array([[0, 2, 0], [0, 2, 1], [1, 2, 2]])
    probs = 0.7 * np.eye(3)[classes] + 0.1
    np.testing.assert_allclose(metrics.disagreement_rate(probs), [2 / 3, 0.0, 1.0])


def test_variance_by_hand_and_as_a_difference_of_brier_scores():
    # Deviations of ±0.2 from 0.7 and 0.3: 0.04 for each of the two classes.
    probs = np.array([[[0.5, 0.5]], [[0.9, 0.1]]])
    np.testing.assert_allclose(metrics.variance(probs), [0.08], rtol=1e-12)
    probs = random_probs(4, 30, 5)
    labels = random_labels(probs[0])
    of_members = np.mean([metrics.brier(member, labels) for member in probs])
    gain = of_members - metrics.brier(probs.mean(0), labels)
    np.testing.assert_allclose(metrics.variance(probs).mean(), gain, rtol=1e-10)


def test_pairwise_kl_is_the_mean_over_ordered_pairs():
    probs = random_probs(4, 20, 5)
    probs[0, 0] = [1.0, 0.0, 0.0, 0.0, 0.0]
    log_probs = np.log(probs + 1e-12)
    pairs = [
        (probs[i] * (log_probs[i] - log_probs[j])).sum(-1)
        for i, j in itertools.permutations(range(4), 2)
    ]
    np.testing.assert_allclose(metrics.pairwise_kl(probs), np.mean(pairs, 0), 1e-10)


DIVERSITY = [
    metrics.pairwise_kl,
    metrics.disagreement_rate,
    metrics.mutual_information,
    metrics.variance,
    metrics.predictive_entropy,
]


@pytest.mark.parametrize("num_members", [1, 2, 3])
def test_equal_members_have_no_diversity(num_members):
    probs = np.repeat(random_probs(1, 30, 6), num_members, axis=0)
    for diversity in DIVERSITY[:4]:
        np.testing.assert_allclose(diversity(probs), np.zeros(30), atol=1e-14)
    np.testing.assert_allclose(
        metrics.predictive_entropy(probs), metrics.predictive_entropy(probs[0])
    )


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_diversity_runs_on_jax_arrays_inside_jit(diversity):
    probs = random_probs(3, 7, 5)
    probs[0, 0] = [1.0, 0.0, 0.0, 0.0, 0.0]
    result = jax.jit(diversity)(jnp.asarray(probs, jnp.float32))
    assert isinstance(result, jax.Array) and result.shape == (7,)
    expected = diversity(probs)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(diversity(probs[[2, 0, 1]]), expected, rtol=1e-12)


def test_pairwise_kl_has_a_gradient_at_zero_probabilities_and_one_member():
    gradient = jax.grad(lambda probs: metrics.pairwise_kl(probs).sum())
    assert np.isfinite(gradient(jnp.array([[[1.0, 0.0]], [[0.5, 0.5]]]))).all()
    np.testing.assert_array_equal(
        gradient(jnp.array([[[0.5, 0.5]]])), np.zeros((1, 1, 2))
    )


@pytest.mark.parametrize("shape", [(4,), (0, 4, 3), (2, 0, 3), (2, 2, 4, 3)])
def test_diversity_refuses_other_shapes(shape):
    for diversity in DIVERSITY:
        with pytest.raises(InputError, match=r"accepted: \[M, N, K\]"):
            diversity(np.ones(shape))


# Out-of-distribution detection and selective prediction.


def test_ood_scores_by_hand():
    scores_in, scores_out = [3.0, 2.0, 1.0], [2.0, 0.0]
    # Of the 6 pairs in-distribution wins (3,2) (3,0) (2,0) (1,0) and ties (2,2).
    assert metrics.auroc(scores_in, scores_out) == pytest.approx(4.5 / 6)
    # At >= 3, 2, 1: precision 1/1, 2/3, 3/4, and recall grows by 1/3 each time.
    expected = (1 + 2 / 3 + 3 / 4) / 3
    assert metrics.aupr(scores_in, scores_out) == pytest.approx(expected)
    # 19 of the 20 scores must be accepted: the threshold is 2.
    scores_in = np.arange(1.0, 21.0)
    assert metrics.fpr_at_95_tpr(scores_in, [2.0, 1.9, 0.0, 50.0]) == 0.5
    # 95 % of 3 is 2.85: all three, threshold 1.
    assert metrics.fpr_at_95_tpr([3.0, 2.0, 1.0], [2.0, 0.0]) == 0.5


def test_ood_scores_of_constant_and_separable_scores():
    assert metrics.auroc([1.0] * 4, [1.0] * 3) == 0.5
    assert metrics.fpr_at_95_tpr([1.0] * 4, [1.0] * 3) == 1.0
    assert metrics.auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert metrics.aupr([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert metrics.fpr_at_95_tpr([2.0, 3.0], [0.0, 1.0]) == 0.0


@pytest.mark.parametrize("num_in", [19, 20, 21, 180, 300])
def test_ood_scores_agree_with_scipy_and_scikit_learn(num_in):
    rng = np.random.default_rng(num_in)
    scores_in = rng.integers(3, 15, num_in).astype(float)  # Many ties.
    scores_out = rng.integers(0, 12, 150).astype(float)
    wins = scipy.stats.mannwhitneyu(scores_in, scores_out).statistic
    auroc = metrics.auroc(scores_in, scores_out)
    assert auroc == pytest.approx(wins / (num_in * 150), abs=1e-9)

    positive = np.r_[np.ones(num_in), np.zeros(150)]
    ranking = np.r_[scores_in, scores_out]
    fpr, tpr, _ = sklearn.metrics.roc_curve(positive, ranking, drop_intermediate=False)
    expected = fpr[np.argmax(tpr >= 0.95)]
    assert metrics.fpr_at_95_tpr(scores_in, scores_out) == pytest.approx(
        expected, abs=1e-9
    )
    precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, ranking)
    expected = -np.sum(np.diff(recall) * precision[:-1])
    assert metrics.aupr(scores_in, scores_out) == pytest.approx(expected, abs=1e-9)


def test_aurc_by_hand():
    # Risks among the 1, 2, 3 most confident: 0, 1/2, 1/3.
    expected = (1 / 2 + 1 / 3) / 3
    assert metrics.aurc([0.7, 0.9, 0.8], [1, 1, 0]) == pytest.approx(expected)
    # A tied pair with one error: expected risks 1/2 and 1/2.
    assert metrics.aurc([0.5, 0.5], [True, False]) == 0.5
    assert metrics.aurc([0.9, 0.8], [True, True]) == 0.0


def test_aurc_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2])
    correct = np.array([1, 0, 1, 1, 0, 1])
    values = []
    for order in itertools.permutations(range(6)):
        if (np.diff(confidence[list(order)]) <= 0).all():
            errors = np.cumsum(1 - correct[list(order)])
            values.append(np.mean(errors / np.arange(1, 7)))
    assert len(values) == 12  # 3! orders of the one tie times 2! of the other.
    aurc = metrics.aurc(confidence, correct)
    assert aurc == pytest.approx(np.mean(values), abs=1e-12)
    assert aurc == pytest.approx(metrics.aurc(confidence[::-1], correct[::-1]))


def test_risk_coverage_by_hand():
    coverage, risk = metrics.risk_coverage([0.7, 0.9, 0.8, 0.1], [1, 1, 0, 1])
    np.testing.assert_allclose(coverage, [1 / 4, 1 / 2, 3 / 4, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4])


def test_risk_coverage_of_ties_is_the_mean_over_their_orders():
    confidence = np.array([0.5, 0.9, 0.5, 0.1, 0.5, 0.1, 0.9])
    correct = np.array([1, 1, 0, 0, 0, 1, 0])
    risks = []
    for order in map(list, itertools.permutations(range(7))):
        if (np.diff(confidence[order]) <= 0).all():
            wrong = [1 - correct[i] for i in order]
            risks.append([sum(wrong[:n]) / n for n in range(1, 8)])
    assert len(risks) == 6 * 2 * 2
    coverage, risk = metrics.risk_coverage(confidence, correct)
    np.testing.assert_allclose(coverage, np.arange(1, 8) / 7)
    np.testing.assert_allclose(risk, np.mean(risks, axis=0), atol=1e-12)
    assert metrics.aurc(confidence, correct) == pytest.approx(risk.mean(), abs=1e-12)


def test_aurc_without_ties_agrees_with_direct_computation():
    rng = np.random.default_rng(0)
    confidence, correct = rng.permutation(200) / 200, rng.random(200) < 0.7
    by_confidence = sorted(zip(confidence, correct, strict=True), reverse=True)
    wrong = [not right for _, right in by_confidence]
    risks = [sum(wrong[:n]) / n for n in range(1, 201)]
    assert metrics.aurc(confidence, correct) == pytest.approx(np.mean(risks), abs=1e-9)


def test_invalid_scores_are_refused():
    for score in (metrics.auroc, metrics.aupr, metrics.fpr_at_95_tpr):
        with pytest.raises(InputError, match=r"scores_in has NaN .* finite"):
            score([math.nan], [1.0])
        with pytest.raises(
            InputError, match=r"scores_out has shape \(0,\); accepted: \[N\]"
        ):
            score([1.0], [])
    with pytest.raises(InputError, match="correct has length 1; accepted: 2"):
        metrics.aurc([0.5, 0.6], [1])
    with pytest.raises(InputError, match="0 and 1"):
        metrics.aurc([0.5, 0.6], [1, 2])
