"""From completed stages to how well they tell sets apart that they never saw."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from edp import data, metrics
from edp.evaluation import incremental
from edp.experiment import restore
from edp.experiment.create import Experiment
from edp.metrics import uncertainty

_PROTOCOL = (
    "Each score of uncertainty is asked to tell images of the test set from those of a "
    "set that no network saw, brought to the same shape. In-distribution is the "
    "positive class, and what is ranked is minus the uncertainty, without temperature "
    "scaling. DE-1 is the mean over the {num_members} single members. Images: {sizes}."
)
_METRICS = {
    "auroc": metrics.auroc,
    "aupr": metrics.aupr,
    "fpr95": metrics.fpr_at_95_tpr,
}

# By score of uncertainty, one for each image [N].
_Scores = Mapping[str, np.ndarray]


def write_detection(experiment: Experiment) -> None:
    """Writes `ood.json`: `rows` for `evaluation.ood_sets`, if there are any.

    A row has a `model` (DE-1, DE-M or a completed student), a `set`, a `score` of
    uncertainty, and its `auroc`, `aupr` and `fpr95` against as many images of the
    test set. Without sets, a file of an earlier evaluation is left as it is.
    """
    evaluation = experiment.config.evaluation
    if not evaluation.ood_sets:
        return
    chosen = incremental.test_subset(experiment, evaluation.ood_size)
    sizes = {"the test set": len(chosen)}
    sizes |= {name: len(images) for name, images in experiment.foreign.items()}
    incremental.write_rows(
        experiment,
        experiment.workdir / "ood.json",
        {key: evaluation[key] for key in ("ood_sets", "ood_size")},
        _PROTOCOL.format(
            num_members=experiment.num_members,
            sizes=", ".join(f"{size:,} of {name}" for name, size in sizes.items()),
        ),
        functools.partial(_detect, experiment, chosen),
    )


def _detect(
    experiment: Experiment, chosen: np.ndarray, records: incremental.Records
) -> dict[str, incremental.Rows]:
    """The rows of each predictor."""
    test = experiment.dataset.test.select(chosen).images
    factor = experiment.config.data.downsample
    foreign = {
        name: data.downsample(images[:], factor)
        for name, images in experiment.foreign.items()
    }
    rows = {}
    for name in incremental.progress(list(records), "out of distribution"):
        score = _create_scorer(experiment, name)
        inside = score(test)
        rows[name] = [
            {"model": model, "set": key, "score": kind, **values}
            for key, images in foreign.items()
            for model, outside in score(images).items()
            for kind, values in detection(inside[model], outside).items()
        ]
    return rows


def _create_scorer(
    experiment: Experiment, name: str
) -> Callable[[np.ndarray], dict[str, list[_Scores]]]:
    """images [N, ...] -> by model, the scores of each group of its members."""
    if name != "teachers":
        score_student = _create_student_scorer(experiment, name)
        return lambda images: {name: [score_student(images)]}
    probs_fn, variables = restore.load_predictor(experiment, name)
    predict = restore.create_predict(experiment, probs_fn)

    def score(images):
        probs = predict(variables, images)
        return {
            model: [uncertainty.scores(probs[group]) for group in groups]
            for model, groups in incremental.member_groups(experiment, name).items()
        }

    return score


def _create_student_scorer(
    experiment: Experiment, name: str
) -> Callable[[np.ndarray], _Scores]:
    """The scores that the student itself has."""
    student, variables = restore.load_student(experiment, name)
    kinds = list(jax.eval_shape(student.uncertainty, variables, experiment.example))

    def stacked(variables, x):  # in the form of probabilities [S, B, K]
        scores = student.uncertainty(variables, x)
        return jnp.stack([scores[kind] for kind in kinds])[..., None]

    predict = restore.create_predict(experiment, stacked)
    return lambda images: dict(
        zip(kinds, predict(variables, images)[..., 0], strict=True)
    )


def detection(
    inside: Sequence[_Scores], outside: Sequence[_Scores]
) -> dict[str, dict[str, float]]:
    """How well uncertainty tells images apart.

    Args:
      inside: of in-distribution images, {score: [N]} for each group of members;
        higher is less certain.
      outside: the same of others.

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
