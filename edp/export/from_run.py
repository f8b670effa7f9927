"""A student, or the ensemble, as one program that needs nothing of this project."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from edp import export
from edp.errors import InputError
from edp.experiment import restore, settings
from edp.experiment.create import Experiment
from edp.metrics import uncertainty
from edp.runtime import storage


def export_predictor(
    experiment: Experiment, name: str, directory: pathlib.Path, *, onnx: bool = False
) -> bool:
    """Writes the artifact of one predictor of a run; see `write_artifact`.

    The temperature is that of the predictor's row in `results.json`, fitted on the
    validation images. The metadata have the row and the run's configuration too.

    Args:
      experiment: an evaluated run; its images are not needed.
      name: 'teachers' or a student.
      directory: where the artifact shall be.
      onnx: whether to add the same program as `model.onnx`.

    Returns:
      Whether it was written; if not, the same is there already.

    Raises:
      InputError: for a predictor that is not there, or is not evaluated since it was
        trained, and as `write_artifact`.
    """
    record = _record(experiment, name)
    row = _row(experiment, name, record)
    probs_fn, variables = restore.load_predictor(experiment, name)
    if name == "teachers":
        scores_fn = _scores_of_members(probs_fn)
    else:
        scores_fn = restore.create_student(experiment, name).uncertainty
    return export.write_artifact(
        export.create_program(probs_fn, scores_fn, variables, row["temperature"]),
        experiment.example.shape[1:],
        directory,
        classes=experiment.dataset.class_names,
        details=_details(experiment, name, record, row),
        onnx=onnx,
    )


def _scores_of_members(probs_fn: export.ProbsFn) -> export.UncertaintyFn:
    return lambda variables, x: uncertainty.scores(probs_fn(variables, x))


def _record(experiment: Experiment, name: str) -> dict[str, Any]:
    """What the predictor's stage recorded."""
    if name == "teachers":
        return restore.teachers_record(experiment)
    students = experiment.config.students
    if name not in students:
        raise InputError(
            f"student={name!r} is none of this run; accepted: "
            f"{', '.join(students)}, or teachers for the ensemble"
        )
    record = restore.student_stage(experiment, name).record
    if record is None:
        raise InputError(f"student={name!r} is not trained yet; run launch.distill")
    return record


def _row(
    experiment: Experiment, name: str, record: Mapping[str, Any]
) -> dict[str, Any]:
    """The predictor's row of results, made since it was trained."""
    model = f"DE-{experiment.num_members}" if name == "teachers" else name
    results = experiment.workdir / "results.json"
    index = experiment.workdir / "predictions" / "made_from.json"
    if results.exists() and index.exists():
        made_from = storage.read_json(index).get(name)
        rows = [row for row in storage.read_json(results) if row["model"] == model]
        if rows and made_from == record["id"]:
            return rows[0]
    raise InputError(
        f"{name} is not evaluated since it was trained; run launch.evaluate with the "
        "run's --config and --workdir first"
    )


def _details(
    experiment: Experiment, name: str, record: Mapping[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    """What is known of the predictor of a run."""
    config = experiment.config
    own = {} if name == "teachers" else settings.student_settings(config, name)
    crops = config.data.resize != "none"
    return {
        "name": name,
        **{key: own[key] for key in ("student", "perturbation") if key in own},
        "preparation": {
            "resize": "central_crop" if crops else "whole",
            "downsample": config.data.downsample,
        },
        "temperature": row["temperature"],
        "metrics": row,
        "training": record["id"],
        "config": json.loads(config.to_json()),
    }
