"""Tests of scores and rows of results against direct computation."""

import itertools
import json

import numpy as np
import pytest

from edp import metrics
from edp.errors import InputError
from edp.evaluation import scoring
from edp.evaluation.predictions import Predictions

METRICS = ["accuracy", "nll", "brier", "ece", "aurc", "temperature"]
METRICS += ["cnll", "cbrier", "cece"]
DIVERSITY = ["pairwise_kl", "disagreement_rate", "mutual_information"]


def make_predictions(num_members, num_examples=60, num_classes=4, seed=0):
    """Draws members that see one signal, each with its own noise."""
    rng = np.random.default_rng(seed)

    def split():
        labels = rng.integers(num_classes, size=num_examples)
        logits = 2.0 * np.eye(num_classes)[labels]
        logits = logits + rng.normal(size=logits.shape)
        logits = logits + 2.0 * rng.normal(size=(num_members, *logits.shape))
        probs = np.exp(logits)
        probs /= probs.sum(-1, keepdims=True)
        return probs.astype(np.float32), labels.astype(np.int32)

    return Predictions(*split(), *split())


def select(predictions, members):
    return predictions._replace(
        validation_probs=predictions.validation_probs[list(members)],
        test_probs=predictions.test_probs[list(members)],
    )


def direct_aurc(probs, labels):
    wrong = (probs.argmax(-1) != labels)[np.argsort(-probs.max(-1))]
    return np.mean([wrong[:n].mean() for n in range(1, len(wrong) + 1)])


def direct_scores(predictions):
    """Computes scores and diversity from the definitions of the metrics."""
    validation = predictions.validation_probs.astype(np.float64).mean(0)
    members = predictions.test_probs.astype(np.float64)
    temperature, _ = metrics.fit_temperature(validation, predictions.validation_labels)
    calibrated = metrics.apply_temperature(members.mean(0), temperature)
    labels = predictions.test_labels
    return {
        "accuracy": metrics.accuracy(members.mean(0), labels),
        "nll": metrics.nll(members.mean(0), labels),
        "brier": metrics.brier(members.mean(0), labels),
        "ece": metrics.ece(members.mean(0), labels),
        "aurc": direct_aurc(members.mean(0), labels),
        "temperature": temperature,
        "cnll": metrics.nll(calibrated, labels),
        "cbrier": metrics.brier(calibrated, labels),
        "cece": metrics.ece(calibrated, labels),
        "pairwise_kl": metrics.pairwise_kl(members).mean(),
        "disagreement_rate": metrics.disagreement_rate(members).mean(),
        "mutual_information": metrics.mutual_information(members).mean(),
    }


def make_rows(predictions, **settings):
    sizes = range(1, len(predictions.validation_probs) + 1)
    costs = [{"num_params": 100 * m, "train_seconds": np.float32(2)} for m in sizes]
    settings = {"seed": 0, "costs": costs, **settings}
    return scoring.ensemble_rows(predictions, **settings)


def make_student_row(predictions, rows, **settings):
    settings = {
        "student": "single",
        "perturbation": "ods",
        "seed": 0,
        "num_params": 100,
        "inference_cost": 1,
        "train_seconds": 5.0,
        **settings,
    }
    return scoring.student_row("kd_ods", predictions, rows, **settings)


def test_scores_by_hand():
    # On validation, odds of 9 are right 7 times of 10: 9^(1/T) = 7/3. So tempered,
    # the test rows' odds of 9 and 81 become 7/3 and 49/9.
    validation = np.array([[0.9, 0.1]] * 10), np.array([0] * 7 + [1] * 3)
    test = np.array([[0.9, 0.1], [81 / 82, 1 / 82]]), np.array([0, 1])
    row = scoring.scores(*validation, *test)
    expected = {
        "accuracy": 0.5,
        "nll": -np.log(0.9 / 82) / 2,
        "brier": (2 * 0.1**2 + 2 * (81 / 82) ** 2) / 2,
        "ece": (0.1 + 81 / 82) / 2,
        "aurc": (1 + 1 / 2) / 2,  # The more confident one is wrong.
        "temperature": np.log(9) / np.log(7 / 3),
        "cnll": -np.log(0.7 * 9 / 58) / 2,
        "cbrier": (2 * 0.3**2 + 2 * (49 / 58) ** 2) / 2,
        "cece": (0.3 + 49 / 58) / 2,
    }
    assert row == pytest.approx(expected, abs=1e-9)


def test_a_temperature_at_its_bound_is_told():
    validation = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])  # All right.
    row = scoring.scores(*validation, *validation)
    assert row["temperature_at_bound"] is True and row["temperature"] == 0.05
    right = make_predictions(2)
    right = right._replace(validation_labels=right.validation_probs[0].argmax(-1))
    rows = make_rows(right)
    # One of the two members is at the bound; the pair is not.
    assert rows[0]["temperature_at_bound"] is True
    assert rows[0]["prefix_temperature_at_bound"] is True
    assert "temperature_at_bound" not in rows[1]


def test_ensemble_rows_are_means_over_subsets():
    predictions = make_predictions(4)
    rows = make_rows(predictions, seed=7)
    assert [row["model"] for row in rows] == ["DE-1", "DE-2", "DE-3", "DE-4"]
    for size, row in enumerate(rows, 1):
        subsets = list(itertools.combinations(range(4), size))
        by_subset = [direct_scores(select(predictions, subset)) for subset in subsets]
        names = METRICS + (DIVERSITY if size >= 2 else [])
        for name in names:
            mean = np.mean([values[name] for values in by_subset])
            assert row[name] == pytest.approx(mean, abs=1e-9), name
            # In lexicographic order the first subset is the prefix.
            prefix = by_subset[0][name]
            assert row[f"prefix_{name}"] == pytest.approx(prefix, abs=1e-9), name
        assert row["kind"] == "ensemble" and row["seed"] == 7
        assert row["num_members"] == size and row["num_params"] == 100 * size
        assert row["train_seconds"] == 2.0
        assert "num_subsets" not in row
        assert ("pairwise_kl" in row) == (size >= 2)
    # These members are independent: each size improves on the one before.
    assert [row["dee"] for row in rows] == pytest.approx([1, 2, 3, 4])
    assert rows[0]["gap_closed"] == 0.0 and rows[-1]["gap_closed"] == 1.0
    gap = rows[0]["cnll"] - rows[3]["cnll"]
    expected = (rows[0]["cnll"] - rows[1]["cnll"]) / gap
    assert rows[1]["gap_closed"] == pytest.approx(expected)


def test_ensembles_at_their_best():
    predictions = make_predictions(3)
    labels = predictions.validation_labels
    rows = make_rows(predictions)
    for size, row in enumerate(rows[1:], 2):
        cnlls = []
        for subset in map(list, itertools.combinations(range(3), size)):
            of = select(predictions, subset)
            pools = [
                metrics.fit_pool(n, of.validation_probs, labels) for n in metrics.POOLS
            ]
            pool = min(pools, key=lambda pool: pool.validation_nll)
            cnlls.append(metrics.nll(pool.calibrate(of.test_probs), of.test_labels))
        assert row["best_cnll"] == pytest.approx(np.mean(cnlls), abs=1e-12)
    assert rows[0]["best_cnll"] == rows[0]["cnll"]
    # The members' logits are the signal with noise, whose mean is best.
    assert rows[2]["best_pool"] == "geometric"
    assert rows[2]["best_cnll"] < rows[2]["cnll"] - 0.01
    student = make_student_row(select(predictions, [0]), rows)
    gap = rows[0]["best_cnll"] - rows[2]["best_cnll"]
    expected = (rows[0]["best_cnll"] - student["cnll"]) / gap
    assert student["gap_closed_best"] == pytest.approx(expected)
    best = [row["best_cnll"] for row in rows]
    expected = metrics.deep_ensemble_equivalent(student["cnll"], best)
    assert student["dee_best"] == expected


@pytest.mark.parametrize("seed", range(6))
def test_one_network_at_its_best_is_itself(seed):
    """The pools of one member differ by rounding, which decided its DEE: 0 or 1."""
    rng = np.random.default_rng(seed)

    def split(size):
        labels = rng.integers(5, size=size)
        logits = 6 * np.eye(5)[labels] + 4.5 * rng.normal(size=(2, size, 5))
        probs = np.exp(logits)
        return (probs / probs.sum(-1, keepdims=True)).astype(np.float32), labels

    row, _ = make_rows(Predictions(*split(200), *split(300)))
    assert row["best_cnll"] == row["cnll"] and row["best_pool"] == "arithmetic"
    assert row["dee_best"] == 1.0 and row["gap_closed_best"] == 0.0


def test_best_pools_of_some_subsets_have_no_member_in_common(monkeypatch):
    predictions = make_predictions(4)
    whole = make_rows(predictions)
    monkeypatch.setattr(scoring, "_MAX_BEST_POOLS", 2)
    rows = make_rows(predictions)
    # Of the pairs 01, 02, 03, 12, 13, 23, the second and the fifth.
    best = []
    for pair in ([0, 2], [1, 3]):
        of = select(predictions, pair)
        pool = metrics.best_pool(of.validation_probs, of.validation_labels)
        best.append(metrics.nll(pool.calibrate(of.test_probs), of.test_labels))
    assert rows[1]["best_cnll"] == pytest.approx(np.mean(best), abs=1e-12)
    assert rows[3]["best_cnll"] == whole[3]["best_cnll"]
    assert rows[1]["cnll"] == whole[1]["cnll"]  # of all pairs


def test_the_row_of_a_lone_member():
    (row,) = make_rows(make_predictions(1))
    assert row["model"] == "DE-1" and row["dee"] == 1.0
    assert row["prefix_cnll"] == row["cnll"]
    assert not {"gap_closed", *DIVERSITY, "num_subsets"} & row.keys()


def test_equal_members_leave_no_gap_and_no_diversity():
    rows = make_rows(select(make_predictions(1), [0, 0]))
    assert rows[0]["cnll"] == rows[1]["cnll"]
    assert "gap_closed" not in rows[0] and "gap_closed" not in rows[1]
    assert [rows[1][name] for name in DIVERSITY] == pytest.approx([0, 0, 0], abs=1e-14)


@pytest.mark.parametrize(
    ("gap", "told"), [(1e-13, False), (-1e-13, False), (1e-6, True)]
)
def test_a_gap_of_rounding_is_none(gap, told):
    teachers = [
        {"num_members": 1, "cnll": 0.3, "prefix_cnll": 0.3},
        {"num_members": 2, "cnll": 0.3 - gap, "prefix_cnll": 0.3 - gap},
    ]
    row = make_student_row(make_predictions(1), teachers)
    assert ("gap_closed" in row) == ("gap_closed_prefix" in row) == told


def test_shapes_that_do_not_fit_are_refused():
    predictions = make_predictions(2)
    wrong = predictions._replace(test_probs=predictions.test_probs[:1])
    with pytest.raises(InputError, match="same members and classes"):
        make_rows(wrong)
    with pytest.raises(InputError, match="same members and classes"):
        make_student_row(wrong, make_rows(predictions))


def test_costs_are_of_each_size():
    with pytest.raises(ValueError, match="shorter"):
        make_rows(make_predictions(2), costs=[{"num_params": 1}])
    rows = make_rows(make_predictions(1), costs=[{"train_flops": None}])
    assert "train_flops" not in rows[0]


def test_the_order_of_members_changes_prefixes_only():
    predictions = make_predictions(4)
    rows = make_rows(predictions)
    permuted = make_rows(select(predictions, [2, 0, 3, 1]))
    for row, other in zip(rows, permuted, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            if not name.startswith("prefix_"):
                assert row[name] == pytest.approx(other[name], abs=1e-9), name
    assert rows[0]["prefix_cnll"] != permuted[0]["prefix_cnll"]


def test_large_families_of_subsets_are_sampled():
    predictions = make_predictions(6, num_examples=20)
    rows = make_rows(predictions, max_subsets=7)
    # There are 6, 15, 20, 15, 6, 1 subsets of 1, ..., 6 of 6 members.
    sampled = [row.get("num_subsets") for row in rows]
    assert sampled == [None, 7, 7, 7, None, None]
    assert rows == make_rows(predictions, max_subsets=7)
    other = make_rows(predictions, max_subsets=7, seed=1)
    assert rows[1]["nll"] != other[1]["nll"]
    assert rows[1]["prefix_nll"] == other[1]["prefix_nll"]
    # 14 distinct ones of 15 leave one out: their sum differs from all by a member.
    nlls = [
        direct_scores(select(predictions, pair))["nll"]
        for pair in itertools.combinations(range(6), 2)
    ]
    left_out = sum(nlls) - 14 * make_rows(predictions, max_subsets=14)[1]["nll"]
    assert np.abs(np.array(nlls) - left_out).min() < 1e-9
    with pytest.raises(InputError, match="max_subsets must be at least 1, got 0"):
        make_rows(predictions, max_subsets=0)


def test_student_row():
    predictions = make_predictions(1, seed=5)
    teachers = [
        {"num_members": 2, "cnll": 0.8, "prefix_cnll": 0.7},
        {"num_members": 1, "cnll": 1.0, "prefix_cnll": 1.1},
    ]
    row = make_student_row(predictions, teachers, notes="first", skipped=None)
    expected = direct_scores(predictions)
    for name in METRICS:
        assert row[name] == pytest.approx(expected[name], abs=1e-9)
    # Not clipped, on both bases.
    assert row["gap_closed"] == pytest.approx((1.0 - row["cnll"]) / 0.2)
    assert row["gap_closed_prefix"] == pytest.approx((1.1 - row["cnll"]) / 0.4)
    assert row["dee"] == metrics.deep_ensemble_equivalent(row["cnll"], [1.0, 0.8])
    assert row["model"] == "kd_ods" and row["kind"] == "student"
    assert row["student"] == "single" and row["perturbation"] == "ods"
    assert row["num_members"] == 1 and row["num_params"] == 100
    assert row["inference_cost"] == 1 and row["train_seconds"] == 5.0
    assert row["notes"] == "first"
    assert not {"skipped", *DIVERSITY} & row.keys()


def test_a_student_like_its_teachers_closes_the_gap():
    predictions = make_predictions(4)
    rows = make_rows(predictions)
    row = make_student_row(predictions, rows)
    assert row["dee"] == 4.0 and row["num_members"] == 4
    assert row["gap_closed"] == pytest.approx(1.0)
    assert row["gap_closed_prefix"] == pytest.approx(1.0)
    for name in DIVERSITY:
        assert row[name] == pytest.approx(rows[3][name], abs=1e-12)
    alone = make_student_row(select(predictions, [0]), rows)
    assert alone["gap_closed_prefix"] == 0.0  # The first member is the prefix DE-1.


def test_a_student_of_a_lone_teacher_has_no_gap():
    teacher = make_predictions(1)
    row = make_student_row(teacher, make_rows(teacher), perturbation=None)
    assert row["dee"] == 1.0
    assert not {"gap_closed", "gap_closed_prefix", "perturbation"} & row.keys()


def test_student_row_refuses_other_teachers_and_reserved_names():
    predictions = make_predictions(2)
    rows = make_rows(predictions)
    for teachers in ([], rows[1:], [*rows, rows[0]]):
        with pytest.raises(InputError, match="each of DE-1"):
            make_student_row(predictions, teachers)
    with pytest.raises(InputError, match="cannot be extra: \\['nll'\\]"):
        make_student_row(predictions, rows, nll=0.0)


def test_rows_are_plain_python_values():
    predictions = make_predictions(3)
    settings = {"num_params": np.int64(5), "train_seconds": np.float32(2.0)}
    rows = make_rows(predictions)
    rows.append(make_student_row(predictions, rows, **settings, loss=np.float64("nan")))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row in rows:
        assert {type(value) for value in row.values()} <= {str, int, float, bool}
        assert "loss" not in row
