"""Paired comparisons of students over seeds and over test images."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.evaluation import predictions
from edp.report.seeds.aggregate import Row, quantity
from edp.report.seeds.runs import Run


class Scored(NamedTuple):
    """Scores of a predictor on the images of one run, from its pooled members.

    Attributes:
      validation_cnll: mean over the validation images, with the temperature fitted
        on them.
      nll: NLL of each test image at that temperature, float64 [N].
      correct: 1.0 for each correctly predicted test image, else 0.0, [N].
    """

    validation_cnll: float
    nll: np.ndarray
    correct: np.ndarray


def score_images(of: predictions.Predictions) -> Scored:
    """Scores each test image at the temperature fitted on the validation split."""
    pooled = [
        probs.mean(0, dtype=np.float64)
        for probs in (of.validation_probs, of.test_probs)
    ]
    temperature, _ = metrics.fit_temperature(pooled[0], of.validation_labels)
    validation, test = (metrics.apply_temperature(p, temperature) for p in pooled)
    return Scored(
        metrics.nll(validation, of.validation_labels),
        metrics.example_nll(test, of.test_labels),
        (pooled[1].argmax(-1) == of.test_labels).astype(np.float64),
    )


def score_runs(
    runs: Sequence[Run], names: Sequence[str]
) -> dict[str, dict[int, Scored]]:
    """Returns image scores by student and seed, for the runs that have the student.

    Raises:
      InputError: if test labels differ from those of the first run, or predictions
        are missing or damaged.
    """
    scored: dict[str, dict[int, Scored]] = {name: {} for name in names}
    first = None
    for run in runs:
        for name in run.student_names:
            path = run.predictions(name)
            of = predictions.load_predictions(path)
            first = first or (path, of.test_labels)
            if not np.array_equal(of.test_labels, first[1]):
                raise InputError(
                    f"{path} and {first[0]} have different test labels; accepted: runs "
                    "with the same test images"
                )
            scored[name][run.seed] = score_images(of)
    return scored


def compare_students(
    scored: Mapping[str, Mapping[int, Scored]],
    names: Sequence[str],
    baselines: Sequence[str],
) -> list[Row]:
    """Compares each student with each baseline on the seeds that have both.

    Returns:
      `comparisons` of `summarize_runs`.
    """
    rows, columns = [], []
    for baseline in baselines:
        for name in names:
            ours, theirs = scored[name], scored[baseline]
            seeds = [seed for seed in ours if seed in theirs]
            if name == baseline or not seeds:
                continue
            row = {"baseline": baseline, "model": name, "seeds": seeds}
            for metric, field in (("cnll", "nll"), ("accuracy", "correct")):
                differences = {
                    s: getattr(ours[s], field) - getattr(theirs[s], field)
                    for s in seeds
                }
                means = {s: float(d.mean()) for s, d in differences.items()}
                p = metrics.paired_p_value(list(means.values()))
                row[metric] = quantity(means) | ({} if p is None else {"p": p})
                columns.append(np.mean(list(differences.values()), axis=0))
            rows.append(row)
    if rows:
        ends = metrics.bootstrap_intervals(np.stack(columns, axis=1)).T.tolist()
        for row in rows:
            row["cnll"]["interval"], row["accuracy"]["interval"] = ends[:2]
            del ends[:2]
    return rows


def validation_cnll(of: Mapping[int, Scored]) -> Row:
    """Returns the validation cNLL of a student over seeds."""
    return quantity({seed: scored.validation_cnll for seed, scored in of.items()})


def best_plain(
    scored: Mapping[str, Mapping[int, Scored]], names: Sequence[str]
) -> Row | None:
    """Returns the best plain student by validation cNLL, among those in most runs.

    Args:
      scored: of `score_runs`.
      names: the plain students.

    Returns:
      `best_plain` of `summarize_runs`; None without names.
    """
    most = max((len(scored[name]) for name in names), default=0)
    cnll = {n: validation_cnll(scored[n]) for n in names if len(scored[n]) == most}
    if not cnll:
        return None
    best = min(cnll, key=lambda name: cnll[name]["mean"])
    return {"model": best, "validation_cnll": cnll[best]}
