"""Robustness: scores of the networks on corrupted test images."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edp import data, metrics
from edp.data import corruption_files, corruptions
from edp.evaluation import image_scores, incremental, results
from edp.evaluation.image_scores import ImageScores
from edp.evaluation.predictions import Predictions
from edp.evaluation.predictor import Predictor, Predictors
from edp.experiment.create import Experiment

_PROTOCOL = (
    "{size:,} images of the test set, corrupted at full size and then downsampled to "
    "the input of the networks; the same images for every network and seed. cNLL uses "
    "the temperature fitted on the clean validation images. DE-1 is the mean over the "
    "{num_members} single members."
)
_PROTOCOL_OF_FOLDER = (
    " {name}: {size:,} published images of each corruption and severity."
)
_SCORES = ("accuracy", "nll", "cnll", "ece")

# By model, the fitted temperature of each group of its members.
_Temperatures = Mapping[str, Sequence[float]]


def write_robustness(experiment: Experiment, predictors: Predictors) -> None:
    """Writes `corruptions.json`: `rows` for `evaluation.corruptions`, if any.

    A row has a `model` (DE-1, DE-M or a completed student), a `corruption` with its
    `severity`, and `accuracy`, `nll`, `cnll` and `ece`. The corruption 'none' of
    severity 0 is the same images uncorrupted; 'mean' is the mean over the corruptions
    of a severity. Those of a folder of published images are named
    '<folder>/<corruption>' and '<folder>/mean'. `corruptions/<student>.npz` has the
    scores of each image, in the mean over all corruptions and severities, for paired
    comparisons. Without corruptions, the files of an earlier evaluation are kept.

    Args:
      experiment: the run.
      predictors: its completed networks.
    """
    run = experiment.run
    evaluation = run.config.evaluation
    if not evaluation.corruptions:
        return
    size = evaluation.corruption_size
    names = [n for n in evaluation.corruptions if not corruption_files.is_folder(n)]
    names = list(corruptions.CORRUPTIONS) if names == ["all"] else names
    chosen = incremental.test_subset(experiment, size)
    # `by_image`: earlier versions of edp did not write the scores of each image.
    depends = {"corruptions": names, "corruption_size": size, "by_image": True}
    protocol = _PROTOCOL.format(size=len(chosen), num_members=run.num_members)
    if published := experiment.data.corrupted_sets:
        depends["published"] = corruption_files.corrupted_digests(published, size)
        for name, sets in published.items():
            number = len(sets.split(sets.names[0], 1, size).labels)
            protocol += _PROTOCOL_OF_FOLDER.format(name=name, size=number)
    incremental.write_rows(
        predictors,
        run.workdir / "corruptions.json",
        depends,
        protocol,
        functools.partial(_score_all, experiment, predictors, names, chosen),
    )


def _score_all(
    experiment: Experiment,
    predictors: Predictors,
    corruption_names: Sequence[str],
    chosen: np.ndarray,
    names: Sequence[str],
) -> dict[str, incremental.Rows]:
    """Returns the rows of each predictor in `names`; writes its scores by image.

    Each corrupted set is made once, and every network predicts it in turn: a
    corruption takes longer than moving a network to the device.
    """
    temperatures = {
        name: fit_temperatures(
            predictors[name], results.load_predictions(experiment, predictors, name)
        )
        for name in names
    }
    rows: dict[str, incremental.Rows] = {name: [] for name in names}
    # By student and set, of each corruption and severity.
    by_image: dict[str, dict[str, list[ImageScores]]] = {name: {} for name in names}
    for corruption, severity, split in _sets(experiment, corruption_names, chosen):
        images = data.downsample(split.images, experiment.run.config.data.downsample)
        setting = {"corruption": corruption, "severity": severity}
        for name in names:
            scores = score(predictors[name], images, split.labels, temperatures[name])
            rows[name] += [{"model": m, **setting, **s} for m, (s, _) in scores.items()]
            if severity and name in scores:
                of_set = by_image[name].setdefault(_mean_name(corruption), [])
                of_set.append(scores[name][1])
    for name, sets in by_image.items():
        if sets:
            image_scores.save(
                image_scores.path_of(experiment.run.workdir, name),
                predictors.records[name]["id"],
                {of: image_scores.mean(scores) for of, scores in sets.items()},
            )
    return {name: own + _means(own) for name, own in rows.items()}


def _sets(
    experiment: Experiment, names: Sequence[str], chosen: np.ndarray
) -> Iterator[tuple[str, int, data.Split]]:
    """Yields corruption, severity and images in memory: clean, computed, published."""
    full = experiment.data.dataset.full_test.select(chosen).in_memory()
    published = experiment.data.corrupted_sets
    of_folders = [(f, n) for f, sets in published.items() for n in sets.names]
    every = [(None, name) for name in names] + of_folders
    pairs = [((None, "none"), 0), *itertools.product(every, corruptions.SEVERITIES)]
    for (folder, name), severity in incremental.progress(pairs, "corruptions"):
        if folder is not None:
            size = experiment.run.config.evaluation.corruption_size
            split = published[folder].split(name, severity, size).in_memory()
            yield f"{folder}/{name}", severity, split
        elif severity:
            images = corruptions.corrupt(name, full.images, severity)
            yield name, severity, full._replace(images=images)
        else:
            yield name, severity, full


def _mean_name(corruption: str) -> str:
    """Returns the name of the mean over the corruptions of a set: '<folder>/mean'."""
    return "".join((*corruption.rpartition("/")[:2], "mean"))


def _means(rows: incremental.Rows) -> incremental.Rows:
    """Returns the rows of 'mean': by folder, severity and model, over corruptions."""
    scores: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for row in rows:
        if row["severity"]:
            of_row = {key: row[key] for key in _SCORES}
            key = _mean_name(row["corruption"]), row["severity"], row["model"]
            scores.setdefault(key, []).append(of_row)
    return [
        {
            "model": model,
            "corruption": name,
            "severity": severity,
            **incremental.mean(alike),
        }
        for (name, severity, model), alike in scores.items()
    ]


def fit_temperatures(predictor: Predictor, clean: Predictions) -> _Temperatures:
    """Fits a temperature to each group of members on the clean validation images."""

    def fit(group):
        pooled = _pool(clean.validation_probs[group])
        return metrics.fit_temperature(pooled, clean.validation_labels).temperature

    return {
        model: [fit(group) for group in groups]
        for model, groups in predictor.groups.items()
    }


def score(
    predictor: Predictor,
    images: np.ndarray,
    labels: np.ndarray,
    temperatures: _Temperatures,
) -> dict[str, tuple[dict[str, float], ImageScores]]:
    """Computes by model the scores of its predictions, and those of each image.

    Args:
      predictor: the teachers or a student.
      images: [N, H, W, C].
      labels: integers [N].
      temperatures: from `fit_temperatures`.
    """
    probs = predictor.predict(images)
    result = {}
    for model, groups in predictor.groups.items():
        scores, of_images = zip(
            *(
                _scores(_pool(probs[group]), labels, temperature)
                for group, temperature in zip(groups, temperatures[model], strict=True)
            ),
            strict=True,
        )
        result[model] = incremental.mean(scores), image_scores.mean(of_images)
    return result


def _scores(
    probs: np.ndarray, labels: np.ndarray, temperature: float
) -> tuple[dict[str, float], ImageScores]:
    calibrated = metrics.apply_temperature(probs, temperature)
    of_images = ImageScores(
        metrics.example_nll(calibrated, labels),
        (probs.argmax(-1) == labels).astype(np.float64),
    )
    values = (
        metrics.accuracy(probs, labels),
        metrics.nll(probs, labels),
        float(of_images.nll.mean()),
        metrics.ece(probs, labels),
    )
    return dict(zip(_SCORES, values, strict=True)), of_images


def _pool(probs: np.ndarray) -> np.ndarray:
    """Returns the mean over members [S, N, K] -> [N, K]."""
    return probs.astype(np.float64).mean(axis=0)
