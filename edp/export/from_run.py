"""Exports a student, or the ensemble, of an evaluated run."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from edp import export
from edp.errors import InputError
from edp.experiment import restore
from edp.experiment.run import Run
from edp.metrics import uncertainty
from edp.runtime import storage


def export_predictor(
    run: Run, name: str, directory: pathlib.Path, *, onnx: bool = False
) -> bool:
    """Writes the artifact of one predictor of a run; see `write_artifact`.

    The temperature is that of the predictor's row in `results.json`, fitted on the
    validation images. The metadata include the row, the run's configuration and, with
    calibration images, the thresholds of prediction sets.

    Args:
      run: an evaluated run.
      name: 'teachers' or a student.
      directory: the directory to create.
      onnx: whether to add the same program as `model.onnx`.

    Returns:
      Whether it was written; False where the same artifact is there already.

    Raises:
      InputError: if there is no such predictor, or it is not evaluated since it was
        trained; and as `write_artifact`.
    """
    record = _record(run, name)
    row = _row(run, name, record)
    probs_fn, variables = restore.load_predictor(run, None, name)
    if name == "teachers":
        scores_fn = _scores_of_members(run)
    else:
        scores_fn = restore.create_student(run, name).uncertainty
    return export.write_artifact(
        export.create_program(probs_fn, scores_fn, variables, row["temperature"]),
        run.image_shape,
        directory,
        classes=run.class_names,
        details={**_details(run, name, record, row), **_prediction_sets(run, row)},
        onnx=onnx,
    )


def _scores_of_members(run: Run) -> export.UncertaintyFn:
    logits = restore.teacher_logits(run, None, run.build_model())
    return lambda variables, x: uncertainty.all_scores(logits(variables, x))


def _record(run: Run, name: str) -> dict[str, Any]:
    """Reads the record of the predictor's stage."""
    if name == "teachers":
        return restore.teachers_record(run)
    students = run.config.students
    if name not in students:
        raise InputError(
            f"student={name!r} does not exist in this run; accepted: "
            f"{', '.join(students)}, or teachers for the ensemble"
        )
    record = restore.student_stage(run, name).record
    if record is None:
        raise InputError(f"student={name!r} is not trained yet; run launch.distill")
    return record


def _row(run: Run, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the predictor's row of results, if it is of the latest training."""
    model = f"DE-{run.num_members}" if name == "teachers" else name
    results = run.workdir / "results.json"
    index = run.workdir / "predictions" / "made_from.json"
    if results.exists() and index.exists():
        made_from = storage.read_json(index).get(name)
        rows = [row for row in storage.read_json(results) if row["model"] == model]
        if rows and made_from == record["id"]:
            return rows[0]
    raise InputError(
        f"{name} is not evaluated since it was trained; run launch.evaluate with the "
        "run's --config and --workdir first"
    )


def _prediction_sets(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the thresholds of prediction sets, if the run has calibration images."""
    if "set_coverage" not in row:
        return {}
    measured = storage.read_mapping(run.workdir / "measures.json")["rows"]
    by_model = {one["model"]: one for one in measured}
    return {"prediction_sets": by_model[row["model"]]["prediction_sets"]}


def _details(
    run: Run, name: str, record: Mapping[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    """Returns the metadata that a predictor of a run adds."""
    config = run.config
    own = {} if name == "teachers" else run.students[name]
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
