"""Predictions and rows of results of a run's completed networks."""

from collections.abc import Callable

from edp import data
from edp.evaluation import costs, predictions, scoring
from edp.evaluation.predictor import TEACHERS, Predictor, Predictors
from edp.experiment.create import Experiment
from edp.runtime import multihost, storage


def collect_rows(
    experiment: Experiment,
    predictors: Predictors,
    tell: Callable[[str], None] = print,
) -> list[scoring.Row]:
    """Computes the rows of DE-1 ... DE-M, then of every completed student.

    Args:
      experiment: the run.
      predictors: its completed networks.
      tell: called with a line on each student that is not trained yet.
    """
    run = experiment.run
    record = predictors.records[TEACHERS]
    rows = scoring.ensemble_rows(
        load_predictions(experiment, predictors, TEACHERS),
        seed=run.teacher_dependencies["seed"],
        costs=costs.of_ensembles(run, record),
        max_subsets=run.config.evaluation.max_subsets,
        soft_labels=experiment.data.soft_labels,
    )
    if skipped := record.get("skipped_steps"):
        rows[-1]["skipped_steps"] = skipped
    ensemble_rows = list(rows)
    for name, section in run.students.items():
        if name not in predictors:
            tell(f"{name}: not trained yet, left out of the results")
            continue
        record = predictors.records[name]
        row = scoring.student_row(
            name,
            load_predictions(experiment, predictors, name),
            ensemble_rows,
            student=section["student"],
            perturbation=section["perturbation"],
            seed=run.config.seed,
            **costs.of_student(run, name, record, costs.counted(experiment, name)),
            skipped_steps=record.get("skipped_steps"),
            soft_labels=experiment.data.soft_labels,
        )
        rows.append(row)
    return rows


def load_predictions(
    experiment: Experiment, predictors: Predictors, name: str
) -> predictions.Predictions:
    """Reads the predictions of a predictor; computes and writes missing ones.

    They are in `predictions/<name>.npz`. Those of an earlier training, or of other
    validation or test data at the same place, are replaced.
    """
    directory = experiment.run.workdir / "predictions"
    # By predictor, the `id` of the training that its file comes from.
    index = directory / "made_from.json"
    made_from = storage.read_mapping(index) if index.exists() else {}
    if made_from.get(predictions.DATA_DIGESTS) != predictors.data_digests:
        made_from = {predictions.DATA_DIGESTS: predictors.data_digests}
    path = directory / f"{name}.npz"
    training = predictors.records[name]["id"]
    made = path.exists() and made_from.get(name) == training
    if multihost.from_first(made):
        return predictions.load_predictions(path)
    result = predict(predictors[name], experiment.data.dataset)
    # Not named while it is written: the evaluation may end before the index is right.
    others = {key: value for key, value in made_from.items() if key != name}
    storage.write_json(index, others)
    predictions.save_predictions(path, result)
    storage.write_json(index, {**others, name: training})
    return result


def predict(predictor: Predictor, dataset: data.Dataset) -> predictions.Predictions:
    """Computes member probabilities on the validation and test images."""
    return predictions.Predictions(
        predictor.predict(dataset.validation.images),
        dataset.validation.labels,
        predictor.predict(dataset.test.images),
        dataset.test.labels,
    )
