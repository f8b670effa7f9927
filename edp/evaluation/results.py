"""From completed stages to the files that show what came of them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from edp.evaluation import costs, predictions, scoring
from edp.experiment import restore, settings
from edp.experiment.create import Experiment
from edp.runtime import multihost, storage


def collect_rows(
    experiment: Experiment, tell: Callable[[str], None] = print
) -> list[scoring.Row]:
    """The rows of DE-1 ... DE-M, then of every student that is complete.

    Predictions are made where there are none of the latest training yet, and kept
    in `predictions/`. `tell` gets a line on each student that is left out.
    """
    config = experiment.config
    record = restore.teachers_record(experiment)
    rows = scoring.ensemble_rows(
        predict(experiment, "teachers", record),
        seed=experiment.teacher_dependencies["seed"],
        costs=costs.of_ensembles(experiment, record),
        max_subsets=config.evaluation.max_subsets,
    )
    if skipped := record.get("skipped_steps"):
        rows[-1]["skipped_steps"] = skipped
    ensemble_rows = list(rows)
    for name in config.students:
        record = restore.student_stage(experiment, name).record
        if record is None:
            tell(f"{name}: not trained yet, left out of the results")
            continue
        chosen = settings.student_settings(config, name)
        row = scoring.student_row(
            name,
            predict(experiment, name, record),
            ensemble_rows,
            student=chosen["student"],
            perturbation=chosen["perturbation"],
            seed=config.seed,
            **costs.of_student(experiment, name, record),
            skipped_steps=record.get("skipped_steps"),
        )
        rows.append(row)
    return rows


def predict(
    experiment: Experiment, name: str, record: Mapping[str, Any]
) -> predictions.Predictions:
    """Member probabilities on validation and test images, made once.

    Args:
      experiment: the run.
      name: 'teachers' or a student; also of the file in `predictions/`.
      record: of the stage that made the variables.
    """
    directory = experiment.workdir / "predictions"
    # Which training each file was made from.
    index = directory / "made_from.json"
    made_from = storage.read_mapping(index) if index.exists() else {}
    path = directory / f"{name}.npz"
    made = path.exists() and made_from.get(name) == record["id"]
    if multihost.from_first(made):
        return predictions.load_predictions(path)
    probs_fn, variables = restore.load_predictor(experiment, name)
    apply = functools.partial(restore.create_predict(experiment, probs_fn), variables)
    dataset = experiment.dataset
    result = predictions.Predictions(
        apply(dataset.validation.images),
        dataset.validation.labels,
        apply(dataset.test.images),
        dataset.test.labels,
    )
    predictions.save_predictions(path, result)
    storage.write_json(index, {**made_from, name: record["id"]})
    return result
