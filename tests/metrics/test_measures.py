"""Tests of groups, churn, selection, joint and selective measures, and attributions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp import ensemble, metrics
from edp.errors import InputError
from edp.evaluation import attribution
from edp.metrics import uncertainty

# Predicted classes 0, 1, 2, 0: right, wrong, right, wrong.
PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]])
LABELS = np.array([0, 2, 2, 1])


def random_members(seed=0, members=4, size=60, classes=5):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(classes), size=(members, size))
    return probs, rng.integers(classes, size=size)


# Calibration errors.


def test_adaptive_ece_by_hand():
    # By confidence: 0.4 right, 0.5 wrong | 0.6 wrong, 0.7 right. Gaps of the parts:
    # |1 - 0.9| and |1 - 1.3|.
    assert metrics.adaptive_ece(PROBS, LABELS, 2) == pytest.approx((0.1 + 0.3) / 4)
    # In three parts, the first has the two: 0.1, 0.6, 0.3.
    assert metrics.adaptive_ece(PROBS, LABELS, 3) == pytest.approx(1.0 / 4)
    # One bin: |accuracy - mean confidence|; at most N bins.
    assert metrics.adaptive_ece(PROBS, LABELS, 1) == pytest.approx(0.05)
    every = (0.6 + 0.5 + 0.6 + 0.3) / 4
    assert metrics.adaptive_ece(PROBS, LABELS, 99) == pytest.approx(every)


def test_adaptive_ece_does_not_depend_on_the_order():
    probs, labels = np.repeat([[0.8, 0.2]], 6, axis=0), np.array([0, 0, 0, 1, 1, 0])
    values = {
        metrics.adaptive_ece(probs, labels[list(order)], 2)
        for order in itertools.permutations(range(6))
    }
    assert len(values) == 1 and values.pop() == pytest.approx(abs(4 / 6 - 0.8))


def test_classwise_ece_by_hand():
    # Two bins. Class 0: (0, 0.5] 0.1 0.3 0.5 without, sum 0.9; (0.5, 1] 0.7 with: 0.3.
    # Class 1: 0.2 0.3 0.25 (with), |0.75 - 1|; 0.6. Class 2: 0.1 0.3 0.4 0.25, two
    # with: |1.05 - 2|.
    expected = (0.9 + 0.3 + 0.25 + 0.6 + 0.95) / 12
    assert metrics.classwise_ece(PROBS, LABELS, 2) == pytest.approx(expected)


def test_classwise_ece_is_the_mean_of_binary_errors():
    probs, labels = random_members(seed=1, members=1, size=300)
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for k in range(5):
        for low, high in itertools.pairwise(edges):
            inside = (probs[0, :, k] > low) & (probs[0, :, k] <= high)
            if inside.any():
                gap = probs[0, inside, k].mean() - (labels[inside] == k).mean()
                total += inside.mean() * abs(gap) / 5
    assert metrics.classwise_ece(probs[0], labels) == pytest.approx(total, abs=1e-12)


# Selective prediction.


def test_selective_measures_by_hand():
    # By confidence: right, wrong, right, wrong, right.
    confidence, correct = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1]
    # Risks 0, 1/2, 1/3, 1/2, 2/5; accepted and wrong 0, 1, 1, 2, 2 of 5.
    assert metrics.augrc(confidence, correct) == pytest.approx(6 / 25)
    assert metrics.risk_at_coverage(confidence, correct, 0.6) == pytest.approx(1 / 3)
    assert metrics.risk_at_coverage(confidence, correct, 0.61) == 0.5
    assert metrics.risk_at_coverage(confidence, correct, 1.0) == pytest.approx(0.4)
    assert metrics.risk_at_coverage(confidence, correct, 1e-9) == 0.0
    assert metrics.coverage_at_risk(confidence, correct, 0.4) == 1.0
    assert metrics.coverage_at_risk(confidence, correct, 0.35) == pytest.approx(0.6)
    assert metrics.coverage_at_risk(confidence, correct, 0.1) == pytest.approx(0.2)
    assert metrics.coverage_at_risk([0.9, 0.1], [0, 1], 0.1) == 0.0
    assert metrics.augrc([0.5] * 10, [0] * 10) == pytest.approx(0.55)


def test_augrc_is_half_the_risk_of_a_random_pair():
    """Traub et al. (2024): the chance that of two examples the worse one errs last.

    With replacement: of examples a, b, that the less confident of the two is accepted
    and one is a silent failure, here as a double loop without ties.
    """
    rng = np.random.default_rng(0)
    confidence, correct = rng.permutation(40), rng.random(40) < 0.7
    # Example a, if wrong, is in the first n of 40 for every n from its rank on.
    pairs = sum(
        not correct[a] and confidence[a] >= confidence[b]
        for a in range(40)
        for b in range(40)
    )
    assert metrics.augrc(confidence, correct) == pytest.approx(pairs / 1600)


def test_rounding_of_a_coverage():
    # 0.55 · 100 is 55.00000000000001; the 56th example is the first error.
    correct = np.r_[np.ones(55), np.zeros(45)]
    assert metrics.risk_at_coverage(-np.arange(100.0), correct, 0.55) == 0.0


def test_least_ambiguous_by_hand():
    ambiguity = [0.5, 0.1, 0.9, 0.5]
    assert metrics.least_ambiguous(ambiguity, 0.0).tolist() == [0, 1, 2, 3]
    assert metrics.least_ambiguous(ambiguity, 0.25).tolist() == [0, 1, 3]
    assert metrics.least_ambiguous(ambiguity, 0.5).tolist() == [0, 1]  # the later tie
    assert metrics.least_ambiguous(ambiguity, 0.49).tolist() == [0, 1, 3]


# Groups and churn.


def test_group_scores_by_hand():
    scores = metrics.group_scores(PROBS, LABELS)
    assert scores.groups.tolist() == [0, 1, 2] and scores.counts.tolist() == [1, 1, 2]
    assert scores.accuracy.tolist() == [1.0, 0.0, 0.5]
    nlls = [-math.log(0.7), -math.log(0.25), -math.log(0.12) / 2]
    np.testing.assert_allclose(scores.nll, nlls)
    # Gaps 0.3; 0.5; and of class 2 in two bins: (0.6 + 0.6) / 2.
    np.testing.assert_allclose(scores.ece, [0.3, 0.5, 0.6])
    worst = scores.worst()
    assert worst["accuracy"] == 0.0 and worst["ece"] == pytest.approx(0.6)
    assert worst["nll"] == pytest.approx(-math.log(0.25))


def test_groups_of_the_data():
    groups = np.array(["b", "a", "b", "a"])
    scores = metrics.group_scores(PROBS, LABELS, groups)
    assert scores.groups.tolist() == ["a", "b"]
    assert scores.accuracy.tolist() == [0.0, 1.0]
    for rows, nll, ece in zip(([1, 3], [0, 2]), scores.nll, scores.ece, strict=True):
        assert nll == pytest.approx(metrics.nll(PROBS[rows], LABELS[rows]))
        assert ece == pytest.approx(metrics.ece(PROBS[rows], LABELS[rows]))


def test_means_over_groups_are_those_of_all():
    probs, labels = random_members(members=1)
    scores = metrics.group_scores(probs[0], labels)
    weights = scores.counts / scores.counts.sum()
    assert weights @ scores.nll == pytest.approx(metrics.nll(probs[0], labels))
    assert weights @ scores.accuracy == pytest.approx(
        metrics.accuracy(probs[0], labels)
    )


def test_churn_by_hand():
    # The new one predicts 0, 2, 1, 0: gains the second, loses the third.
    new = PROBS[:, [0, 2, 1]]
    assert metrics.churn(PROBS, new, LABELS) == (0.5, 0.25, 0.25)
    assert metrics.churn(PROBS, PROBS, LABELS) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_churn_is_the_difference_of_the_accuracies(seed):
    (old, new), labels = random_members(seed, members=2)
    churn, good, bad = metrics.churn(old, new, labels)
    gain = metrics.accuracy(new, labels) - metrics.accuracy(old, labels)
    assert good - bad == pytest.approx(gain) and churn >= good + bad
    assert metrics.churn(new, old, labels) == (churn, bad, good)


# Choice of members.


def test_mutual_errors_by_hand():
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    # Members wrong on examples {0}, {0, 1}, {2, 3}.
    members = [
        [wrong, right, right, right],
        [wrong, wrong, right, right],
        [right, right, wrong, wrong],
    ]
    errors = metrics.mutual_errors(members, [0, 0, 0, 0])
    np.testing.assert_allclose(errors, np.array([[1, 1, 0], [1, 2, 0], [0, 0, 2]]) / 4)
    # The best, then the one that never errs with it.
    assert metrics.choose_by_mutual_errors(errors) == [0, 2, 1]


def test_mutual_errors_by_a_double_loop():
    probs, labels = random_members()
    errors = metrics.mutual_errors(probs, labels)
    for i, j in itertools.product(range(4), repeat=2):
        both = [
            probs[i, n].argmax() != labels[n] and probs[j, n].argmax() != labels[n]
            for n in range(60)
        ]
        assert errors[i, j] == pytest.approx(np.mean(both), abs=1e-12)
    np.testing.assert_allclose(
        np.diag(errors), [1 - metrics.accuracy(member, labels) for member in probs]
    )


def test_greedy_choice_by_nll():
    probs, labels = random_members(seed=3)
    chosen = metrics.choose_by_nll(probs, labels)
    assert sorted(chosen) == [0, 1, 2, 3]
    for size in range(1, 5):
        before = chosen[: size - 1]
        nlls = {
            m: metrics.nll(probs[[*before, m]].mean(0), labels)
            for m in set(range(4)) - set(before)
        }
        assert chosen[size - 1] == min(nlls, key=nlls.get)


def test_nlls_in_order_by_hand():
    probs = [[[0.5, 0.5]], [[0.25, 0.75]], [[1.0, 0.0]]]
    found = metrics.nlls_in_order(probs, [1], [1, 0, 2])
    # The means are 3/4, 5/8, 5/12.
    np.testing.assert_allclose(found, -np.log([3 / 4, 5 / 8, 5 / 12]), atol=1e-11)
    (one,) = metrics.nlls_in_order(probs, [1], [0])
    assert one == pytest.approx(np.log(2))


def test_equal_members_are_chosen_in_order():
    probs = np.repeat(PROBS[None], 3, axis=0)
    assert metrics.choose_by_nll(probs, LABELS) == [0, 1, 2]
    errors = metrics.mutual_errors(probs, LABELS)
    assert metrics.choose_by_mutual_errors(errors) == [0, 1, 2]
    with pytest.raises(InputError, match="errors has shape"):
        metrics.choose_by_mutual_errors([[0.0, 0.1], [0.2, 0.0]])


# Joint predictions.


def test_joint_nll_by_hand():
    # One member is certain of class 0, the other of class 1; two examples of class 0.
    probs = [[[0.9, 0.1]] * 2, [[0.2, 0.8]] * 2]
    value = metrics.joint_nll(probs, [0, 0], [[0, 1]])
    assert value == pytest.approx(-math.log((0.9**2 + 0.2**2) / 2))
    value = metrics.joint_nll(probs, [0, 1], [[0, 1], [0, 0]])
    first = -math.log((0.9 * 0.1 + 0.2 * 0.8) / 2)
    assert value == pytest.approx((first - math.log((0.9**2 + 0.2**2) / 2)) / 2)


def test_joint_nll_of_one_example_and_of_one_member():
    probs, labels = random_members()
    singles = np.arange(60)[:, None]
    assert metrics.joint_nll(probs, labels, singles) == pytest.approx(
        metrics.nll(probs.mean(0), labels)
    )
    every = np.random.default_rng(0).permutation(60).reshape(6, 10)
    assert metrics.joint_nll(probs[:1], labels, every) == pytest.approx(
        10 * metrics.nll(probs[0], labels)
    )
    # Below Jensen's bound: the mean of the members' joint NLLs.
    of_members = [10 * metrics.nll(member, labels) for member in probs]
    assert metrics.joint_nll(probs, labels, every) <= np.mean(of_members)
    # 2000 labels of probability 1e-12 do not underflow.
    certain = metrics.joint_nll([[[0.0, 1.0]]] * 2, [0], np.zeros((1, 2000), int))
    assert certain == pytest.approx(2000 * 12 * math.log(10))


def test_dyadic_batches():
    batches = metrics.dyadic_batches(50, num_batches=200, tau=10, kappa=2)
    assert batches.shape == (200, 10)
    assert batches.min() >= 0 and batches.max() < 50
    sizes = [len(set(batch.tolist())) for batch in batches]
    assert max(sizes) == 2 and np.mean(np.array(sizes) == 2) > 0.98  # 1 - 2^-9
    assert len(np.unique(batches)) == 50
    again = metrics.dyadic_batches(50, num_batches=200, tau=10, kappa=2)
    np.testing.assert_array_equal(batches, again)
    with pytest.raises(InputError, match="kappa=3 is out of range"):
        metrics.dyadic_batches(2, kappa=3)


# Logits and their gradients.


def test_logit_scores_by_hand():
    logits = jnp.array([[[math.log(1.0), math.log(3.0)]], [[0.0, math.log(27.0)]]])
    scores = uncertainty.logit_scores(logits)  # mean logits 0 and log 9
    assert float(scores["energy"][0]) == pytest.approx(-math.log(10), rel=1e-6)
    assert float(scores["max_logit"][0]) == pytest.approx(-math.log(9), rel=1e-6)


def test_the_scores_of_logits_in_bfloat16_keep_apart_confident_examples():
    logits = jnp.array([[[8.0, 0.0], [7.0, 0.0]]], jnp.bfloat16)
    score = uncertainty.all_scores(logits)["max_probability"]
    expected = [1 / (1 + math.exp(8)), 1 / (1 + math.exp(7))]
    np.testing.assert_allclose(score, expected, rtol=1e-3)


def test_energy_of_shifted_logits():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 20, 5)), jnp.float32)
    scores = uncertainty.logit_scores(logits)
    shifted = uncertainty.logit_scores(logits + 7.0)
    for name, score in scores.items():
        np.testing.assert_allclose(shifted[name], score - 7.0, rtol=1e-5)


def test_attribution_diversity_by_hand():
    along, across = [3.0, 0.0], [0.0, 0.5]
    gradients = np.array([[along, along, along], [along, across, [-1.0, 0.0]]])
    np.testing.assert_allclose(
        metrics.attribution_diversity(gradients), [0.0, 1.0, 2.0], atol=1e-12
    )
    # Pairs of three members: cosines 1, 0, 0.
    three = np.array([[along], [along], [across]])
    np.testing.assert_allclose(metrics.attribution_diversity(three), [2 / 3])
    assert metrics.attribution_diversity(three[:1]).tolist() == [0.0]
    assert metrics.attribution_diversity(three * 0).tolist() == [1.0]
    tiny = metrics.attribution_diversity(np.float32(three) * np.float32(1e-30))
    np.testing.assert_allclose(tiny, [2 / 3], rtol=1e-6)


def test_attributions_of_linear_members():
    """The gradient of a linear member is the weights of the class predicted by all."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)))
    teachers = ensemble.teachers_from_functions(
        [lambda x, w=w: x.reshape(len(x), -1) @ w for w in weights]
    )
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 2, 2, 1)))
    gradients = attribution.attributions(teachers, x)
    mean = jax.nn.softmax(jnp.einsum("bd,mdk->mbk", x.reshape(6, 4), weights)).mean(0)
    expected = weights[:, :, mean.argmax(-1)].transpose(0, 2, 1)
    np.testing.assert_allclose(gradients.reshape(3, 6, 4), expected, rtol=1e-6)
    assert gradients.shape == (3, *x.shape)
