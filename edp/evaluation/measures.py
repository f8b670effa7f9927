"""Further measures of the networks on the test images, beside the table of results."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp import data, metrics
from edp.evaluation import attribution, incremental, results
from edp.evaluation.prediction_sets import fit_thresholds, set_row
from edp.evaluation.predictions import Predictions
from edp.evaluation.predictor import TEACHERS, Predictor, Predictors
from edp.experiment import restore
from edp.experiment.create import Experiment

LEFT_OUT = 0.1  # fraction of the test images, the most ambiguous ones

_PROTOCOL = (
    "Scores of the {num_test:,} test images without temperature scaling, 15 bins. "
    "Confidence is the largest probability. Ambiguous images are the tenth with the "
    "largest entropy of {ambiguity}. Joint NLL: 1,000 batches of 10 "
    "draws from 2 images. Churn is against DE-{num_members}. {sets}DE-1 is the mean "
    "over the {num_members} single members."
)
_SETS = (
    "Prediction sets ({score}, coverage {coverage}) use calibrated probabilities and "
    "{size:,} calibration images, which fit no temperature and choose no epoch. "
)

# probabilities [N, K], labels [N] -> a score.
_Score = Callable[[np.ndarray, np.ndarray], float]


def _of_confidence(score: Callable[..., float]) -> _Score:
    """Returns a score of selective prediction as a function of probabilities."""

    def of_probs(probs, labels):
        return score(probs.max(axis=1), probs.argmax(axis=1) == labels)

    return of_probs


SCORES: dict[str, _Score] = {
    "adaptive_ece": metrics.adaptive_ece,
    "classwise_ece": metrics.classwise_ece,
    "augrc": _of_confidence(metrics.augrc),
    "risk_at_80_coverage": _of_confidence(metrics.risk_at_coverage),
    "coverage_at_5_risk": _of_confidence(metrics.coverage_at_risk),
}
"""By name in a row, scores of all test images."""

CLEAR_SCORES: dict[str, _Score] = {
    "clear_accuracy": metrics.accuracy,
    "clear_aurc": _of_confidence(metrics.aurc),
}
"""By name in a row, scores without the most ambiguous images."""


def write_measures(experiment: Experiment, predictors: Predictors) -> incremental.Rows:
    """Writes `measures.json`: `rows` of DE-1, DE-M and every completed student.

    A row has its `model`; `SCORES` and `CLEAR_SCORES`; `worst_class_accuracy`,
    `..._nll` and `..._ece`; `joint_nll`; and `by_class`, lists [K]. A student's has
    its `churn`, `good_churn` and `bad_churn`; that of DE-M the choice of `members`
    and, with `evaluation.attribution_size`, their `attribution_diversity`. With
    calibration images, a row has `set_coverage`, `set_size`, and `set_size_by_rank`,
    and `prediction_sets` holds the thresholds (not in DE-1).

    Args:
      experiment: the run.
      predictors: its completed networks.

    Returns:
      The rows.
    """
    run = experiment.run
    evaluation = run.config.evaluation
    score = evaluation.get("set_score") or "thr"
    coverages = [float(c) for c in evaluation.get("set_coverages") or (0.9,)]
    calibration = experiment.data.dataset.calibration
    attribution_size = evaluation.get("attribution_size") or 0
    soft_labels = experiment.data.soft_labels
    sets = ""
    if calibration is not None:
        size = len(calibration.labels)
        sets = _SETS.format(score=score, coverage=coverages[0], size=size)

    def measure(names: Sequence[str]) -> dict[str, incremental.Rows]:
        teachers = results.load_predictions(experiment, predictors, TEACHERS)
        ensemble_probs = _pool(teachers.test_probs)
        ambiguous = ensemble_probs if soft_labels is None else soft_labels
        clear = metrics.least_ambiguous(metrics.predictive_entropy(ambiguous), LEFT_OUT)
        return {
            name: _rows(
                results.load_predictions(experiment, predictors, name),
                ensemble_probs,
                clear,
                predictors[name],
                calibration,
                functools.partial(fit_thresholds, score=score, coverages=coverages),
                functools.partial(_attribution_diversity, experiment, attribution_size),
            )
            for name in incremental.progress(names, "measures")
        }

    return incremental.write_rows(
        predictors,
        run.workdir / "measures.json",
        {
            "set_score": score,
            "set_coverages": coverages,
            "attribution_size": attribution_size,
            "soft_labels": _digest(soft_labels),
        },
        _PROTOCOL.format(
            num_test=len(experiment.data.dataset.test.labels),
            num_members=run.num_members,
            sets=sets,
            ambiguity="the teachers' mean prediction"
            if soft_labels is None
            else "their soft labels",
        ),
        measure,
        compare_with_teachers=True,  # churn, and the images that are ambiguous
    )


def _digest(array: np.ndarray | None) -> str | None:
    """Returns the SHA-256 of the values of an array."""
    return array if array is None else hashlib.sha256(array.tobytes()).hexdigest()


def add_set_scores(
    rows: Sequence[dict[str, Any]], measured: Sequence[Mapping[str, Any]]
) -> None:
    """Adds `set_coverage` and `set_size` to the rows of results that have them.

    Args:
      rows: rows of `results.json`.
      measured: rows of `measures.json`.
    """
    by_model = {row["model"]: row for row in measured}
    for row in rows:
        own = by_model.get(row["model"], {})
        for name in ("set_coverage", "set_size"):
            if name in own:
                row[name] = own[name]


def _rows(
    predictions: Predictions,
    ensemble_probs: np.ndarray,
    clear: np.ndarray,
    predictor: Predictor,
    calibration: data.Split | None,
    fit: Callable[[np.ndarray, np.ndarray], dict[str, Any]],
    attributions: Callable[[Predictor], dict[str, float]],
) -> incremental.Rows:
    """Returns the rows of one predictor.

    Args:
      predictions: its predictions.
      ensemble_probs: of the teachers' mean on the test images [N, K].
      clear: indices of the test images that are not ambiguous.
      predictor: the predictor.
      calibration: the calibration images, if there are any.
      fit: probabilities [n, K] and labels of these -> as `fit_thresholds`.
      attributions: the teachers -> further fields of the row of DE-M.
    """
    labels = predictions.test_labels
    calibration_probs = calibration and predictor.predict(calibration.images)
    rows = []
    for model, groups in predictor.groups.items():
        of_groups, fitted = [], {}
        for group in groups:
            row = measure_probs(predictions.test_probs[group], labels, clear)
            if calibration is not None:
                fitted, own = _sets(
                    *(predictions, calibration_probs, calibration.labels, group, fit)
                )
                row |= own
            of_groups.append(row)
        row = {"model": model, **_mean(of_groups)}
        if fitted and len(groups) == 1:
            row["prediction_sets"] = fitted
        if predictor.student is not None:
            churn = metrics.churn(ensemble_probs, _pool(predictions.test_probs), labels)
            row |= {"churn": churn.churn, "good_churn": churn.good}
            row["bad_churn"] = churn.bad
        elif len(groups) == 1:
            row["members"] = choose_members(predictions)
            row |= attributions(predictor)
        rows.append(row)
    return rows


def measure_probs(
    probs: np.ndarray, labels: np.ndarray, clear: np.ndarray
) -> dict[str, Any]:
    """Computes the measures of one group of members.

    Args:
      probs: member probabilities of the test images [S, N, K].
      labels: integers [N].
      clear: indices of the images that are not ambiguous.

    Returns:
      Floats, and in `by_class` the accuracy, NLL and ECE of each class [K], NaN for
      a class without images.
    """
    mean = _pool(probs)
    row: dict[str, Any] = {name: f(mean, labels) for name, f in SCORES.items()}
    row |= {name: f(mean[clear], labels[clear]) for name, f in CLEAR_SCORES.items()}
    groups = metrics.group_scores(mean, labels)
    row |= {f"worst_class_{name}": value for name, value in groups.worst().items()}
    row["joint_nll"] = metrics.joint_nll(
        probs, labels, metrics.dyadic_batches(len(labels), kappa=min(2, len(labels)))
    )
    by_class = np.full((3, mean.shape[1]), np.nan)
    by_class[:, groups.groups] = groups.accuracy, groups.nll, groups.ece
    names = ("accuracy", "nll", "ece")
    row["by_class"] = dict(zip(names, by_class, strict=True))
    return row


def _sets(
    predictions: Predictions,
    calibration_probs: np.ndarray,
    calibration_labels: np.ndarray,
    group: slice,
    fit: Callable[[np.ndarray, np.ndarray], dict[str, Any]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the thresholds of one group of members, and their `set_row`."""
    temperature, _ = metrics.fit_temperature(
        _pool(predictions.validation_probs[group]), predictions.validation_labels
    )

    def calibrated(probs):
        return metrics.apply_temperature(_pool(probs[group]), temperature)

    fitted = fit(calibrated(calibration_probs), calibration_labels)
    test_probs = calibrated(predictions.test_probs)
    return fitted, set_row(fitted, test_probs, predictions.test_labels)


def choose_members(predictions: Predictions) -> dict[str, Any]:
    """Compares two greedy choices of members, made on the validation images.

    Returns:
      `mutual_errors` [M][M]; `by_mutual_errors` and `by_nll`, the members in the order
      of their choice; and as `test_nll_...` [M] the test NLL of the first m of each.
    """
    labels = predictions.validation_labels
    errors = metrics.mutual_errors(predictions.validation_probs, labels)
    chosen = {
        "by_mutual_errors": metrics.choose_by_mutual_errors(errors),
        "by_nll": metrics.choose_by_nll(predictions.validation_probs, labels),
    }
    test_nlls = {
        f"test_nll_{name}": metrics.nlls_in_order(
            predictions.test_probs, predictions.test_labels, order
        )
        for name, order in chosen.items()
    }
    return {"mutual_errors": errors.tolist(), **chosen, **test_nlls}


def _attribution_diversity(
    experiment: Experiment, size: int, teachers: Predictor
) -> dict[str, float]:
    """Computes how differently the teachers attribute; {} for size 0."""
    run, mesh = experiment.run, experiment.mesh
    if not size:
        return {}
    model = run.build_teacher()

    def diversity(variables, x) -> jax.Array:  # in the form of probabilities [S, B, K]
        members = restore.make_teachers(run, mesh, model, variables)
        gradients = attribution.attributions(members, x)
        values: jnp.ndarray = metrics.attribution_diversity(gradients)
        return values[None, :, None]

    program = restore.create_predict(diversity, run.config.evaluation.batch_size)
    images = data.fixed_part(experiment.data.dataset.test, size).images
    return {"attribution_diversity": float(program(teachers.variables, images).mean())}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean of each field, as JSON values; None where it is NaN."""

    def mean(*values):
        array = np.mean(values, axis=0)
        if not array.ndim:
            return array.item()
        return [None if np.isnan(value) else float(value) for value in array]

    return jax.tree.map(mean, *rows)


def _pool(probs: np.ndarray) -> np.ndarray:
    """Returns the mean over members [S, N, K] -> float64 [N, K]."""
    return probs.astype(np.float64).mean(axis=0)
