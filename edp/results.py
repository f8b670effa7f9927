"""From completed stages to the files that show what came of them."""

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from edp import (
    analysis,
    data,
    evaluation,
    perturbations,
    predictions,
    processes,
    rng,
    settings,
    stages,
    workdir,
)
from edp.experiment import Experiment


def collect_rows(experiment: Experiment) -> list[evaluation.Row]:
    """The rows of DE-1 ... DE-M, then of every student that is complete.

    Predictions are made where there are none of the latest training yet, and kept
    in `predictions/`.
    """
    config = experiment.config
    record = stages.teachers_record(experiment)

    def load_teachers():
        model, variables = stages.load_teachers(experiment)
        return stages.teacher_probs(experiment, model), variables

    def load_student(name):
        student, variables = stages.load_student(experiment, name)
        return student.predict, variables

    rows = evaluation.ensemble_rows(
        _predict(experiment, "teachers", record, load_teachers),
        seed=experiment.teacher_dependencies["seed"],
        num_params=record["num_params"],
        train_seconds=record["train_seconds"],
        max_subsets=config.evaluation.max_subsets,
    )
    ensemble_rows = list(rows)
    for name in config.students:
        record = stages.student_stage(experiment, name).record
        if record is None:
            print(f"{name}: not trained yet, left out of the results")
            continue
        chosen = settings.student_settings(config, name)
        row = evaluation.student_row(
            name,
            _predict(experiment, name, record, functools.partial(load_student, name)),
            ensemble_rows,
            student=chosen["student"],
            perturbation=chosen["perturbation"],
            seed=config.seed,
            num_params=record["num_params"],
            inference_cost=stages.create_student(experiment, name).inference_cost,
            train_seconds=record["train_seconds"],
        )
        rows.append(row)
    return rows


def _predict(
    experiment: Experiment,
    name: str,
    record: Mapping[str, Any],
    load: Callable[[], tuple[Callable[[Any, jax.Array], jax.Array], Any]],
) -> predictions.Predictions:
    """Member probabilities on validation and test images, made once.

    Args:
      experiment: the run.
      name: of the file in `predictions/`.
      record: of the stage that made the variables.
      load: gives the function (variables, x) -> probabilities and the variables.
    """
    directory = experiment.workdir / "predictions"
    # Which training each file was made from.
    index = directory / "made_from.json"
    made_from = workdir.read_json(index) if index.exists() else {}
    path = directory / f"{name}.npz"
    made = path.exists() and made_from.get(name) == record["id"]
    if processes.from_first(made):
        return predictions.load_predictions(path)
    probs_fn, variables = load()
    predict = functools.partial(stages.create_predict(experiment, probs_fn), variables)
    dataset = experiment.dataset
    result = predictions.Predictions(
        predict(dataset.validation.images),
        dataset.validation.labels,
        predict(dataset.test.images),
        dataset.test.labels,
    )
    predictions.save_predictions(path, result)
    workdir.write_json(index, {**made_from, name: record["id"]})
    return result


def analyse_teachers(experiment: Experiment) -> None:
    """Writes `analysis.json` and `gallery.npz`: where the teachers disagree.

    On clean training and test inputs, and on training inputs perturbed as for
    each student (once where several students perturb alike).
    """
    config = experiment.config
    model, variables = stages.load_teachers(experiment)
    chosen, seen = {}, []
    for name in config.students:
        student = settings.student_settings(config, name)
        perturbs_alike = [student[key] for key in settings.PERTURBATION_KEYS]
        if student["perturbation"] != "none" and perturbs_alike not in seen:
            seen.append(perturbs_alike)
            chosen[name] = student
    size = config.evaluation.diversity_size
    dataset = experiment.dataset
    result, gallery = analysis.compare_inputs(
        functools.partial(stages.make_teachers, experiment, model),
        variables,
        {
            "train": data.Split(*(a[:size] for a in dataset.train)),
            "test": data.Split(*(a[:size] for a in dataset.test)),
        },
        {
            name: perturbations.create_perturbation(student)
            for name, student in chosen.items()
        },
        rng.stream(experiment.key, "analysis"),
        batch_size=config.evaluation.batch_size,
        gallery_size=config.evaluation.gallery_size,
    )
    facts = {
        name: {"perturbation": s["perturbation"], "step_size": s["step_size"]}
        for name, s in chosen.items()
    }
    clean = {"perturbation": None, "step_size": None}
    rows = [
        {"inputs": name, **facts.get(name, clean), **values}
        for name, values in result.items()
    ]
    workdir.write_json(experiment.workdir / "analysis.json", {"diversity": rows})
    buffer = io.BytesIO()
    names = np.array(experiment.dataset.class_names)
    np.savez_compressed(buffer, class_names=names, **gallery)
    workdir.write_bytes(experiment.workdir / "gallery.npz", buffer.getvalue())
