"""Computes rows of results from the predictions of an ensemble or a student.

Temperatures are fitted on the validation split of the `Predictions`; every score is
on the test split. Rows are flat dicts of plain Python values, ready for JSON; a field
that does not apply to a row is absent.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.evaluation.predictions import Predictions, check_shapes

Row = dict[str, Any]
Subset = tuple[int, ...]  # Indices of members, ascending.

# Subsets of a size whose best pool is fitted, which takes several fits for each.
_MAX_BEST_POOLS = 32

# A smaller gap between DE-1 and DE-M is rounding: the members are the same.
MIN_GAP = 1e-12


def scores(
    validation_probs: np.ndarray,
    validation_labels: np.ndarray,
    test_probs: np.ndarray,
    test_labels: np.ndarray,
    soft_labels: np.ndarray | None = None,
) -> Row:
    """Computes the scores of one predictor from its pooled probabilities.

    Args:
      validation_probs: probabilities [N, K], to fit the temperature.
      validation_labels: integers [N].
      test_probs: probabilities [N', K], to score.
      test_labels: integers [N'].
      soft_labels: probabilities [N', K], such as the distribution of people's labels.

    Returns:
      `accuracy`, `nll`, `brier`, `ece`, `aurc` (its confidence the largest
      probability), the fitted `temperature`, with it applied `cnll`, `cbrier`,
      `cece`; with soft labels those of `metrics.soft_label_scores`; and
      `temperature_at_bound` (True) only where the fit ended at a bound.

    Raises:
      InputError: if shapes do not match, rows are not probabilities (NaN included),
        or labels are out of range.
    """
    temperature, at_bound = metrics.fit_temperature(validation_probs, validation_labels)
    calibrated_probs = metrics.apply_temperature(test_probs, temperature)
    row = {
        "accuracy": metrics.accuracy(test_probs, test_labels),
        "nll": metrics.nll(test_probs, test_labels),
        "brier": metrics.brier(test_probs, test_labels),
        "ece": metrics.ece(test_probs, test_labels),
        "aurc": metrics.aurc(test_probs.max(1), test_probs.argmax(1) == test_labels),
        "temperature": temperature,
        "cnll": metrics.nll(calibrated_probs, test_labels),
        "cbrier": metrics.brier(calibrated_probs, test_labels),
        "cece": metrics.ece(calibrated_probs, test_labels),
    }
    if soft_labels is not None:
        row |= metrics.soft_label_scores(test_probs, soft_labels)
    if at_bound:
        row["temperature_at_bound"] = True
    return row


def ensemble_rows(
    predictions: Predictions,
    *,
    seed: int,
    costs: Sequence[Mapping[str, Any]],
    max_subsets: int = 256,
    soft_labels: np.ndarray | None = None,
) -> list[Row]:
    """Computes the rows of the deep ensembles DE-1, ..., DE-M, in this order.

    A metric of DE-m is its mean over all subsets of m of the M members, each with its
    own temperature; `temperature_at_bound` is set where any fit ended at a bound.
    `prefix_<metric>` is the value of the first m members alone. Rows from m = 2 have
    diversity (on the test split, mean over examples). `best_cnll` is the cNLL of the
    ensemble at its best: of the way to pool the members that has the lowest NLL on the
    validation split (`metrics.POOLS`), chosen for each of at most 32 of these subsets,
    evenly spaced in lexicographic order; `best_pool` is the most frequent. That of DE-1
    is its cNLL.

    Args:
      predictions: the predictions of the M members.
      seed: the run's seed; recorded, and the seed of the sample of subsets.
      costs: by size, further fields of the rows, such as `num_params`.
      max_subsets: where a size has more subsets, this many distinct ones are drawn,
        and the row has `num_subsets`.
      soft_labels: see `scores`.

    Returns:
      M rows. `dee` uses the rows' own `cnll`, so it is below m where a smaller
      ensemble is as good. `gap_closed` is absent where M = 1 or the cNLL of DE-M is not
      below that of DE-1 by more than rounding (1e-12). `dee_best` and `gap_closed_best`
      are the same for an ensemble pooled in the usual way, among ensembles at their
      best.

    Raises:
      InputError: if `max_subsets` is below 1, or `scores` refuses the predictions.
      ValueError: if there are not M `costs`.
    """
    check_shapes(predictions)
    if max_subsets < 1:
        raise InputError(f"max_subsets must be at least 1, got {max_subsets}")
    num_members = len(predictions.test_probs)
    score_subset = _subset_scorer(predictions, soft_labels)
    rows = []
    sizes = range(1, num_members + 1)
    for size, cost in zip(sizes, costs, strict=True):
        subsets = _subsets(num_members, size, max_subsets, seed)
        by_subset = {subset: score_subset(subset) for subset in subsets}
        prefix = tuple(range(size))
        of_prefix = by_subset.get(prefix) or score_subset(prefix)
        means = _mean(list(by_subset.values()))
        # All pools of one member are the same up to rounding.
        best = {"best_cnll": means["cnll"], "best_pool": next(iter(metrics.POOLS))}
        if size > 1:
            best = _best_pools(predictions, _spread(subsets, _MAX_BEST_POOLS))
        row = {
            "model": f"DE-{size}",
            "kind": "ensemble",
            "seed": seed,
            "num_members": size,
            **cost,
            **means,
            **{f"prefix_{name}": value for name, value in of_prefix.items()},
            **best,
        }
        if len(subsets) < math.comb(num_members, size):
            row["num_subsets"] = len(subsets)
        rows.append(row)
    for row in rows:
        row |= _standing(row["cnll"], rows)
    return [_plain(row) for row in rows]


def student_row(
    name: str,
    predictions: Predictions,
    ensemble_rows: Sequence[Mapping[str, Any]],
    *,
    student: str,
    seed: int,
    inference_cost: float,
    perturbation: str | None = None,
    num_params: int | None = None,
    train_seconds: float | None = None,
    soft_labels: np.ndarray | None = None,
    **extra: Any,
) -> Row:
    """Computes the row of a student from its pooled members.

    Args:
      name: the student's name, the row's `model`.
      predictions: those of the student's S members; from S = 2 the row has diversity.
      ensemble_rows: its teachers' rows DE-1, ..., DE-M, the reference of `dee` and of
        the share of the gap from DE-1 to DE-M that the student closes: `gap_closed`
        on the mean over subsets, `gap_closed_prefix` on the first members. The share
        is not clipped: below 0 is worse than DE-1, above 1 better than DE-M. It is
        absent where M = 1 or DE-M is not better than DE-1. `gap_closed_best` and
        `dee_best` are the same beside the ensembles at their best (`best_cnll`); absent
        for rows without it.
      student: kind of student, such as "single" or "batch_ensemble".
      seed: the run's seed.
      inference_cost: in units of one plain network.
      perturbation: name of the perturbation, or None.
      num_params: parameters of the whole student, or None.
      train_seconds: time to train the student, or None.
      soft_labels: see `scores`.
      **extra: further fields; None and NaN are removed.

    Raises:
      InputError: if `ensemble_rows` are not DE-1, ..., DE-M, an extra field has the
        name of a field of the row, or `scores` refuses the predictions.
    """
    check_shapes(predictions)
    teachers = sorted(ensemble_rows, key=lambda row: row["num_members"])
    sizes = [row["num_members"] for row in teachers]
    if not sizes or sizes != list(range(1, len(sizes) + 1)):
        raise InputError(
            f"ensemble_rows must hold each of DE-1, ..., DE-M once, got sizes {sizes}"
        )
    num_members = len(predictions.test_probs)
    row = {
        "model": name,
        "kind": "student",
        "student": student,
        "perturbation": perturbation,
        "seed": seed,
        "num_members": num_members,
        "num_params": num_params,
        "inference_cost": inference_cost,
        "train_seconds": train_seconds,
        **_subset_scorer(predictions, soft_labels)(tuple(range(num_members))),
    }
    row |= _standing(row["cnll"], teachers)
    row |= _gap_closed("gap_closed_prefix", row["cnll"], teachers, "prefix_cnll")
    if taken := row.keys() & extra.keys():
        raise InputError(f"fields of the row itself cannot be extra: {sorted(taken)}")
    return _plain(row | extra)


def _subsets(num_members: int, size: int, limit: int, seed: int) -> list[Subset]:
    """Returns all subsets of a size in lexicographic order, or a sample of `limit`."""
    if math.comb(num_members, size) <= limit:
        return list(itertools.combinations(range(num_members), size))
    rng = np.random.default_rng([seed, size])
    drawn: set[Subset] = set()
    while len(drawn) < limit:
        drawn.add(tuple(sorted(rng.permutation(num_members)[:size].tolist())))
    return sorted(drawn)


def _spread(subsets: Sequence[Subset], limit: int) -> list[Subset]:
    """Returns at most `limit` of the subsets, at equal distances.

    The first ones in lexicographic order have the first members in common.
    """
    number = min(limit, len(subsets))
    return [subsets[(2 * i + 1) * len(subsets) // (2 * number)] for i in range(number)]


def _subset_scorer(
    predictions: Predictions, soft_labels: np.ndarray | None
) -> Callable[[Subset], Row]:
    """Returns a function from a subset of members to its scores and diversity.

    It computes once what subsets share: sums over their first members, divergences of
    pairs (the mean over pairs is the mean of the pairs' means) and entropies of
    members.
    """
    pool_validation = _pooler(predictions.validation_probs)
    pool_test = _pooler(predictions.test_probs)
    entropies = [
        metrics.predictive_entropy(member.astype(np.float64)).mean()
        for member in predictions.test_probs
    ]
    pairs = {
        pair: _pair_diversity(predictions.test_probs[list(pair)].astype(np.float64))
        for pair in itertools.combinations(range(len(entropies)), 2)
    }

    def score(subset: Subset) -> Row:
        test_probs = pool_test(subset)
        row = scores(
            pool_validation(subset),
            predictions.validation_labels,
            test_probs,
            predictions.test_labels,
            soft_labels,
        )
        if len(subset) >= 2:
            of_pairs = [pairs[pair] for pair in itertools.combinations(subset, 2)]
            row["pairwise_kl"], row["disagreement_rate"] = np.mean(of_pairs, axis=0)
            entropy = metrics.predictive_entropy(test_probs).mean()
            of_members = np.mean([entropies[member] for member in subset])
            row["mutual_information"] = entropy - of_members
        return row

    return score


def _best_pools(predictions: Predictions, subsets: Sequence[Subset]) -> Row:
    """Computes the cNLL of subsets of the members, each pooled in its best way."""
    pools, cnlls = [], []
    for subset in map(list, subsets):
        pool = metrics.best_pool(
            predictions.validation_probs[subset], predictions.validation_labels
        )
        test_probs = pool.calibrate(predictions.test_probs[subset])
        cnlls.append(metrics.nll(test_probs, predictions.test_labels))
        pools.append(pool.name)
    most_frequent = max(metrics.POOLS, key=pools.count)
    return {"best_cnll": np.mean(cnlls), "best_pool": most_frequent}


def _pair_diversity(probs: np.ndarray) -> tuple[float, float]:
    """Computes divergence and disagreement rate of two members [2, N, K]."""
    disagreement = metrics.disagreement_rate(probs)
    return metrics.pairwise_kl(probs).mean(), disagreement.mean()


def _pooler(probs: np.ndarray) -> Callable[[Subset], np.ndarray]:
    """Returns a function from a subset of members to its mean, float64 [N, K].

    In lexicographic order, subsets share the sums of their first members.
    """

    @functools.lru_cache(maxsize=len(probs) + 1)
    def total(subset: Subset) -> np.ndarray:
        last = probs[subset[-1]].astype(np.float64)
        return total(subset[:-1]) + last if len(subset) > 1 else last

    return lambda subset: total(subset) / len(subset)


def _mean(rows: Sequence[Row]) -> Row:
    """Returns the mean of each field; a flag is set where any row has it."""
    mean = {
        name: np.mean([row[name] for row in rows])
        for name in rows[0]
        if name != "temperature_at_bound"
    }
    if any("temperature_at_bound" in row for row in rows):
        mean["temperature_at_bound"] = True
    return mean


def _standing(cnll: float, rows: Sequence[Mapping[str, Any]]) -> Row:
    """Computes `dee` and `gap_closed` of a calibrated NLL among DE-1, ..., DE-M."""
    standing = {}
    for suffix, basis in (("", "cnll"), ("_best", "best_cnll")):
        if all(basis in row for row in rows):  # results of earlier versions lack some
            cnlls = [row[basis] for row in rows]
            standing[f"dee{suffix}"] = metrics.deep_ensemble_equivalent(cnll, cnlls)
            standing |= _gap_closed(f"gap_closed{suffix}", cnll, rows, basis)
    return standing


def _gap_closed(
    name: str, cnll: float, rows: Sequence[Mapping[str, Any]], basis: str
) -> Row:
    """Computes the share of the gap from DE-1 to DE-M; {} if DE-M is not better."""
    gap = rows[0][basis] - rows[-1][basis]
    return {name: (rows[0][basis] - cnll) / gap} if gap > MIN_GAP else {}


def _plain(row: Mapping[str, Any]) -> Row:
    """Converts to plain Python values; removes None and NaN."""
    values = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in row.items()
    }
    return {
        name: value
        for name, value in values.items()
        if not (value is None or value != value)
    }
