"""Tests of conformal sets by hand, by their guarantee, and against MAPIE and crepes."""

import math

import numpy as np
import pytest

from edp import metrics
from edp.errors import InputError
from edp.metrics import conformal

PROBS = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])


def draw(rng, size, num_classes=5, sharpness=1.5):
    """Draws labels, and probabilities that are too certain about them."""
    logits = sharpness * rng.normal(size=(size, num_classes))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    uniform = rng.random((size, 1))
    labels = np.minimum((truth.cumsum(1) < uniform).sum(1), num_classes - 1)
    probs = truth**2 / (truth**2).sum(1, keepdims=True)
    return probs, labels


def test_scores_by_hand():
    np.testing.assert_allclose(
        metrics.thr_scores(PROBS), [[0.5, 0.7, 0.8], [0.9, 0.8, 0.3]]
    )
    # In descending order 0.5, 0.3, 0.2 and 0.7, 0.2, 0.1.
    aps = np.array([[0.5, 0.8, 1.0], [1.0, 0.9, 0.7]])
    np.testing.assert_allclose(metrics.aps_scores(PROBS), aps)
    np.testing.assert_allclose(
        metrics.aps_scores(PROBS, [0.5, 1.0]), [[0.25, 0.65, 0.9], [0.9, 0.7, 0.0]]
    )
    np.testing.assert_allclose(
        metrics.raps_scores(PROBS, penalty=0.1, free_ranks=1),
        np.add(aps, [[0.0, 0.1, 0.2], [0.2, 0.1, 0.0]]),
    )
    # Of equal probabilities the first class comes first.
    np.testing.assert_allclose(metrics.aps_scores([[0.4, 0.2, 0.4]]), [[0.4, 1, 0.8]])


@pytest.mark.parametrize(
    ("size", "coverage", "rank"),
    # (n + 1) coverage: 9; 9.9; 18; 54.999... in floating point but 55; 10.8 > 9.
    [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.55, 55), (9, 0.98, None)],
)
def test_threshold_by_hand(size, coverage, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, size + 1))
    expected = math.inf if rank is None else float(rank)
    assert metrics.conformal_threshold(scores, coverage) == expected
    smallest = metrics.smallest_calibration_size(coverage)
    assert (size >= smallest) == (rank is not None)


def test_smallest_calibration_size():
    assert [metrics.smallest_calibration_size(c) for c in (0.5, 0.9, 0.95)] == [
        *(1, 9, 19)
    ]
    for coverage in (0.5, 0.9, 0.95, 0.99):
        size = metrics.smallest_calibration_size(coverage)
        assert math.isfinite(metrics.conformal_threshold(np.zeros(size), coverage))
    assert math.isinf(metrics.conformal_threshold(np.zeros(8), 0.9))


def test_sets_and_their_scores_by_hand():
    sets = metrics.prediction_sets(metrics.thr_scores(PROBS), 0.7)
    assert sets.tolist() == [[True, True, False], [False, False, True]]
    assert metrics.prediction_sets(metrics.thr_scores(PROBS), math.inf).all()
    empty = metrics.prediction_sets(metrics.thr_scores(PROBS), 0.1, allow_empty=True)
    assert not empty.any()
    filled = metrics.prediction_sets(metrics.thr_scores(PROBS), 0.1)
    assert filled.tolist() == [[True, False, False], [False, False, True]]
    # The label of the first is its 2nd class, of the second its 3rd by probability.
    scores = metrics.set_scores(sets, PROBS, [1, 0])
    assert scores.coverage == 0.5 and scores.mean_size == 1.5
    assert scores.class_counts.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(scores.class_coverage, [0.0, 1.0, np.nan])
    assert scores.rank_counts.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(scores.rank_sizes, [np.nan, 2.0, 1.0])


def test_rounding_does_not_lose_the_label_of_the_threshold():
    """The score that sets the threshold is inside its own set."""
    for seed in range(20):
        probs, labels = draw(np.random.default_rng(seed), 30)
        for score in conformal.SCORES.values():
            scores = score(probs)
            own = metrics.label_scores(scores, labels)
            threshold = metrics.conformal_threshold(own, 0.8)
            covered = metrics.prediction_sets(score(probs.copy()), threshold)
            assert covered[np.arange(30), labels].sum() >= 25


DRAWS = 200


@pytest.mark.parametrize("name", ["thr", "aps randomised", "raps"])
def test_coverage_is_within_its_bounds_over_draws(name):
    """The mean over 200 draws is α's within four standard errors; each one in range.

    With continuous scores the expected coverage is rank / (n + 1), here 18 / 20: the
    plain 0.9-quantile of n = 19 scores would cover about 0.86.
    """
    size, test_size, coverage = 19, 400, 0.9
    rng = np.random.default_rng(1)

    def score(probs):
        if name == "aps randomised":
            return metrics.aps_scores(probs, rng.random(len(probs)))
        if name == "raps":
            return metrics.raps_scores(probs, rng.random(len(probs)), penalty=0.05)
        return metrics.thr_scores(probs)

    coverages, plain = [], []
    for _ in range(DRAWS):
        probs, labels = draw(rng, size + test_size)
        scores = score(probs)
        own = metrics.label_scores(scores, labels)
        threshold = metrics.conformal_threshold(own[:size], coverage)
        sets = metrics.prediction_sets(scores[size:], threshold, allow_empty=True)
        coverages.append(sets[np.arange(test_size), labels[size:]].mean())
        plain.append(np.mean(own[size:] <= np.quantile(own[:size], coverage)))
    coverages = np.array(coverages)
    error = coverages.std(ddof=1) / np.sqrt(DRAWS)
    assert abs(coverages.mean() - 0.9) < 4 * error
    assert np.mean(plain) < 0.9 - 4 * error
    low, high = metrics.coverage_bounds(size, test_size, coverage, level=0.95)
    outside = np.mean((coverages < low) | (coverages > high))
    assert outside < 0.1  # 0.05 expected; the chance of twice that is below 0.1 %
    low, high = metrics.coverage_bounds(size, test_size, coverage, level=1 - 1e-7)
    assert low <= coverages.min() and coverages.max() <= high


def test_sets_that_are_never_empty_cover_at_least_as_much():
    rng = np.random.default_rng(2)
    coverages = []
    for _ in range(DRAWS):
        probs, labels = draw(rng, 450)
        scores = metrics.aps_scores(probs)
        threshold = metrics.conformal_threshold(
            metrics.label_scores(scores[:50], labels[:50]), 0.9
        )
        sets = metrics.prediction_sets(scores[50:], threshold)
        assert sets.any(axis=1).all()
        coverages.append(metrics.set_scores(sets, probs[50:], labels[50:]).coverage)
    assert np.mean(coverages) > 0.9


def test_bounds_by_hand():
    # One test example, rank 9 of n = 9: covered with probability 9/10.
    assert metrics.coverage_bounds(9, 1, 0.9, level=0.5) == (1.0, 1.0)
    assert metrics.coverage_bounds(9, 1, 0.9, level=0.9) == (0.0, 1.0)
    assert metrics.coverage_bounds(8, 1, 0.9) == (1.0, 1.0)  # every class, always
    # A large test set: the quantiles of Beta(90, 10), 0.834 and 0.951.
    low, high = metrics.coverage_bounds(99, 10**4, 0.9)
    assert (low, high) == pytest.approx((0.8338, 0.9508), abs=3e-3)


def test_wrong_inputs_are_refused():
    for coverage in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match=r"coverage=.* accepted: numbers between"):
            metrics.conformal_threshold([0.5], coverage)
    with pytest.raises(InputError, match="penalty=-1"):
        metrics.raps_scores(PROBS, penalty=-1)
    with pytest.raises(InputError, match=r"uniform has length 1 .* accepted: 2"):
        metrics.aps_scores(PROBS, [0.5])
    with pytest.raises(InputError, match="sets has dtype"):
        metrics.set_scores(PROBS, PROBS, [0, 1])
    with pytest.raises(InputError, match="labels has values"):
        metrics.label_scores(metrics.thr_scores(PROBS), [0, 3])


class _Fitted:
    """A classifier, as scikit-learn has it, whose inputs are its probabilities."""

    def __init__(self, num_classes):
        self.classes_ = np.arange(num_classes)

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(1)


def test_thr_equals_mapie():
    mapie = pytest.importorskip("mapie.classification")
    probs, labels = draw(np.random.default_rng(3), 700)
    for size, coverage in ((100, 0.9), (199, 0.8), (500, 0.95)):
        peer = mapie.SplitConformalClassifier(
            _Fitted(5), confidence_level=coverage, prefit=True
        )
        peer.conformalize(probs[:size], labels[:size])
        _, expected = peer.predict_set(probs[size:])
        scores = metrics.thr_scores(probs)
        threshold = metrics.conformal_threshold(
            metrics.label_scores(scores[:size], labels[:size]), coverage
        )
        sets = metrics.prediction_sets(scores[size:], threshold, allow_empty=True)
        np.testing.assert_array_equal(sets, expected[:, :, 0])


def test_sets_equal_crepes():
    """crepes takes scores of any kind; its p-value is above α inside a set."""
    crepes = pytest.importorskip("crepes")
    probs, labels = draw(np.random.default_rng(4), 700)
    for name, score in conformal.SCORES.items():
        scores = score(probs)
        own = metrics.label_scores(scores[:200], labels[:200])
        peer = crepes.ConformalClassifier().fit(own)
        expected = peer.predict_set(scores[200:], confidence=0.9, smoothing=False)
        threshold = metrics.conformal_threshold(own, 0.9)
        sets = metrics.prediction_sets(scores[200:], threshold, allow_empty=True)
        np.testing.assert_array_equal(sets, expected == 1, err_msg=name)
