"""OOD detection: scores of uncertainty on the test set against sets never seen."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from edp import data, metrics
from edp.evaluation import incremental
from edp.evaluation.predictor import Predictor, Predictors
from edp.experiment.create import Experiment
from edp.metrics import uncertainty
from edp.runtime.batched import Images

_PROTOCOL = (
    "Each score of uncertainty separates images of the test set from those of a set "
    "that no network saw, resized to the same shape. In-distribution is the positive "
    "class, ranked by minus the uncertainty, without temperature scaling. DE-1 is the "
    "mean over the {num_members} single members. Images: {sizes}."
)
_METRICS = {
    "auroc": metrics.auroc,
    "aupr": metrics.aupr,
    "fpr95": metrics.fpr_at_95_tpr,
}

# By name of the score, uncertainty [N].
_Scores = Mapping[str, np.ndarray]


def write_detection(experiment: Experiment, predictors: Predictors) -> None:
    """Writes `ood.json`: `rows` for `evaluation.ood_sets`, if there are any.

    A row has a `model` (DE-1, DE-M or a completed student), a `set`, a `score` of
    uncertainty, and its `auroc`, `aupr` and `fpr95` against as many images of the
    test set. Without sets, the file of an earlier evaluation is kept as it is.

    Args:
      experiment: the run.
      predictors: its completed networks.
    """
    run = experiment.run
    evaluation = run.config.evaluation
    if not evaluation.ood_sets:
        return
    chosen = incremental.test_subset(experiment, evaluation.ood_size)
    sizes = {"the test set": len(chosen)}
    sizes |= {name: len(images) for name, images in experiment.data.ood_sets.items()}
    incremental.write_rows(
        predictors,
        run.workdir / "ood.json",
        {
            **{key: evaluation[key] for key in ("ood_sets", "ood_size")},
            "ood_digests": {
                name: data.split_digest(data.Split(images, np.zeros(len(images))))
                for name, images in experiment.data.ood_sets.items()
            },
        },
        _PROTOCOL.format(
            num_members=run.num_members,
            sizes=", ".join(f"{size:,} of {name}" for name, size in sizes.items()),
        ),
        functools.partial(_detect_all, experiment, predictors, chosen),
    )


def _detect_all(
    experiment: Experiment,
    predictors: Predictors,
    chosen: np.ndarray,
    names: Sequence[str],
) -> dict[str, incremental.Rows]:
    """Returns the rows of each predictor in `names`."""
    test = experiment.data.dataset.test.select(chosen).images
    factor = experiment.run.config.data.downsample
    ood_sets = {
        name: data.downsample(images[:], factor)
        for name, images in experiment.data.ood_sets.items()
    }
    return {
        name: detection_rows(predictors[name], test, ood_sets)
        for name in incremental.progress(names, "out of distribution")
    }


def detection_rows(
    predictor: Predictor, test: Images, ood_sets: Mapping[str, Images]
) -> incremental.Rows:
    """Returns the rows of one predictor; see `write_detection`.

    Args:
      predictor: the teachers or a student.
      test: in-distribution images [N, H, W, C].
      ood_sets: by name, out-of-distribution images of the same shape.
    """
    inside = _scores_by_model(predictor, test)
    return [
        {"model": model, "set": key, "score": kind, **values}
        for key, images in ood_sets.items()
        for model, outside in _scores_by_model(predictor, images).items()
        for kind, values in detection(inside[model], outside).items()
    ]


def _scores_by_model(predictor: Predictor, images: Images) -> dict[str, list[_Scores]]:
    """Returns by model the scores of each group of its members."""
    if predictor.uncertainty is not None:
        return {predictor.name: [predictor.uncertainty(images)]}
    assert predictor.logits is not None
    logits = predictor.logits(images)
    return {
        model: [uncertainty.all_scores(logits[group]) for group in groups]
        for model, groups in predictor.groups.items()
    }


def detection(
    inside: Sequence[_Scores], outside: Sequence[_Scores]
) -> dict[str, dict[str, float]]:
    """Computes how well uncertainty separates two sets of images.

    Args:
      inside: scores of in-distribution images, {score: [N]} for each group of
        members; higher = less certain.
      outside: the same of out-of-distribution images.

    Returns:
      By score, `auroc`, `aupr` and `fpr95`, each the mean over groups.
    """
    return {
        kind: incremental.mean(
            [
                {key: metric(-a[kind], -b[kind]) for key, metric in _METRICS.items()}
                for a, b in zip(inside, outside, strict=True)
            ]
        )
        for kind in inside[0]
    }
