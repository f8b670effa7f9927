"""From completed stages to how they fare on corrupted test images."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edp import data, metrics
from edp.data import corruptions
from edp.evaluation import incremental, results
from edp.experiment import restore
from edp.experiment.create import Experiment

_PROTOCOL = (
    "{size:,} images of the test set, corrupted at full size and then brought to what "
    "the networks take; the same ones for every network and seed. cNLL is at the "
    "temperature fitted on the validation images as they are. DE-1 is the mean over "
    "the {num_members} single members."
)
_SCORES = ("accuracy", "nll", "cnll", "ece")


def write_robustness(experiment: Experiment) -> None:
    """Writes `corruptions.json`: `rows` for `evaluation.corruptions`, if any.

    A row has a `model` (DE-1, DE-M or a completed student), a `corruption` with its
    `severity`, and `accuracy`, `nll`, `cnll` and `ece`. The corruption 'none' of
    severity 0 is the same images as they are; 'mean' is the mean over the others of
    a severity. Without corruptions, a file of an earlier evaluation is left as it is.
    """
    evaluation = experiment.config.evaluation
    if not evaluation.corruptions:
        return
    names = list(evaluation.corruptions)
    names = list(corruptions.CORRUPTIONS) if names == ["all"] else names
    chosen = incremental.test_subset(experiment, evaluation.corruption_size)
    incremental.write_rows(
        experiment,
        experiment.workdir / "corruptions.json",
        {"corruptions": names, "corruption_size": evaluation.corruption_size},
        _PROTOCOL.format(size=len(chosen), num_members=experiment.num_members),
        functools.partial(_corrupt, experiment, names, chosen),
    )


def _corrupt(
    experiment: Experiment,
    names: Sequence[str],
    chosen: np.ndarray,
    records: incremental.Records,
) -> dict[str, incremental.Rows]:
    """The rows of each predictor.

    Every set of images is made once and shown to all networks, which are held
    together: they take less memory than all the sets would, and less time than the
    corruptions.
    """
    full = np.asarray(experiment.dataset.full_test.select(chosen).images[:])
    labels = experiment.dataset.test.labels[chosen]
    scorers = {
        name: _create_scorer(experiment, name, record, labels)
        for name, record in records.items()
    }
    rows: dict[str, incremental.Rows] = {name: [] for name in records}
    severities = corruptions.SEVERITIES
    sets = [("none", 0), *itertools.product(names, severities)]
    for corruption, severity in incremental.progress(sets, "corruptions"):
        images = corruptions.corrupt(corruption, full, severity) if severity else full
        images = data.downsample(images, experiment.config.data.downsample)
        place = {"corruption": corruption, "severity": severity}
        for name, score in scorers.items():
            rows[name] += [{"model": m, **place, **s} for m, s in score(images).items()]
    return {name: own + _means(own) for name, own in rows.items()}


def _means(rows: incremental.Rows) -> incremental.Rows:
    """The rows of 'mean': of each severity and model, over the corruptions."""
    scores: dict[tuple[int, str], list[dict[str, float]]] = {}
    for row in rows:
        if row["severity"]:
            of_row = {key: row[key] for key in _SCORES}
            scores.setdefault((row["severity"], row["model"]), []).append(of_row)
    return [
        {
            "model": model,
            "corruption": "mean",
            "severity": severity,
            **incremental.mean(alike),
        }
        for (severity, model), alike in scores.items()
    ]


def _create_scorer(
    experiment: Experiment, name: str, record: Mapping[str, Any], labels: np.ndarray
) -> Callable[[np.ndarray], dict[str, dict[str, float]]]:
    """images [N, ...] -> by model, the scores of its predictions."""
    clean = results.predict(experiment, name, record)

    def temperature(group):
        pooled = _pool(clean.validation_probs[group])
        return metrics.fit_temperature(pooled, clean.validation_labels).temperature

    models = {
        model: [(group, temperature(group)) for group in groups]
        for model, groups in incremental.member_groups(experiment, name).items()
    }
    probs_fn, variables = restore.load_predictor(experiment, name)
    predict = restore.create_predict(experiment, probs_fn)

    def score(images):
        probs = predict(variables, images)
        return {
            model: incremental.mean(
                [_scores(_pool(probs[group]), labels, t) for group, t in groups]
            )
            for model, groups in models.items()
        }

    return score


def _scores(
    probs: np.ndarray, labels: np.ndarray, temperature: float
) -> dict[str, float]:
    calibrated = metrics.apply_temperature(probs, temperature)
    values = (
        metrics.accuracy(probs, labels),
        metrics.nll(probs, labels),
        metrics.nll(calibrated, labels),
        metrics.ece(probs, labels),
    )
    return dict(zip(_SCORES, values, strict=True))


def _pool(probs: np.ndarray) -> np.ndarray:
    """The mean over members [S, N, K]."""
    return probs.astype(np.float64).mean(axis=0)
