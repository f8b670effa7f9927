"""Exports a student, or the ensemble, of an evaluated run."""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edp import data, export, metrics
from edp.errors import InputError
from edp.evaluation import predictions
from edp.experiment import data_record, open_run, restore
from edp.experiment.run import Run
from edp.export import targets
from edp.metrics import uncertainty
from edp.runtime import multihost, storage

BEST = "best"
"""Name that stands for `best_student`."""


HELD_OUT = 100
"""Number of test images that targets are compared on."""

# Settings that are paths, by section.
_PATHS = {"data": ("path", "data_dir", "soft_labels"), "evaluation": ("soft_labels",)}
_RANGES = 100  # training images for the ranges of int8
_VALIDATION = 2000


def export_predictor(
    run: Run,
    name: str,
    directory: pathlib.Path,
    *,
    examples: export.Examples | None = None,
    **options: Any,
) -> bool:
    """Writes the artifact of one predictor of a run; see `write_artifact`.

    The temperature is that of the predictor's row in `results.json`, fitted on the
    validation images. The metadata include the row, the run's configuration and, with
    calibration images, the thresholds of prediction sets.

    Args:
      run: an evaluated run.
      name: 'teachers' or a student.
      directory: the directory to create.
      examples: see `write_artifact`; None: from the run's data, which are read for
        targets other than 'jax' only.
      **options: `targets`, `precision` and others of `write_artifact`.

    Returns:
      Whether it was written; False where the same artifact is there already.

    Raises:
      InputError: if there is no such predictor, or it is not evaluated since it was
        trained; and as `write_artifact`.
    """
    wanted = options.get("targets", ())
    reduced = options.get("precision", "float32")
    targets.check_settings(wanted, reduced)
    record = _record(run, name)
    row = _row(run, name, record)
    if row.get("temperature_at_bound"):
        multihost.warn(
            f"{name}: its temperature, {row['temperature']:g}, is a bound of the range "
            "in which the evaluation searches, so its probabilities are not "
            "calibrated; more validation images may help"
        )
    if examples is None and ({*wanted} - {targets.JAX} or reduced != "float32"):
        examples = load_examples(run)
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
        examples=examples,
        **options,
    )


def load_examples(run: Run, held_out: int | None = HELD_OUT) -> export.Examples:
    """Reads the run's data, and returns images spread over its splits.

    Args:
      run: the run.
      held_out: the number of test images; None: all.

    Raises:
      InputError: if the data are missing, or are others than the run was trained on.
    """
    source = run.teachers_dir.parent
    settings: Any = run.config.data
    options = {
        "seed": run.teacher_dependencies["seed"],
        "split_path": source / "split.npz",
    }
    dataset = data.create_dataset(settings, **options)
    digests = data_record.training_digests(dataset)
    other = functools.partial(data_record.other_digests, dataset, settings, **options)
    # Whatever labels the networks were trained on, the images are to be theirs.
    data_record.check(source, digests, settings, other, own=False)
    train = _spread(dataset.train, _RANGES)
    calibration = dataset.calibration
    return export.Examples(
        held_out=_spread(dataset.test, held_out or len(dataset.test.labels)),
        validation=_spread(dataset.validation, _VALIDATION),
        train=train.images[:],
        calibration=None if calibration is None else calibration.in_memory(),
    )


def _spread(split: data.Split, number: int) -> data.Split:
    """Returns so many images of a split, or all, at equal distances."""
    total = len(split.labels)
    chosen = split.select(np.arange(min(number, total)) * total // min(number, total))
    return chosen.in_memory()


def export_student(
    workdir: storage.Path, name: str, directory: storage.Path | None, **options: Any
) -> tuple[str, pathlib.Path, bool]:
    """Exports a predictor of the run in a workdir; see `export_predictor`.

    Args:
      workdir: of an evaluated run.
      name: 'teachers', a student, or 'best' for `best_student`.
      directory: the directory to create; None: `exported/NAME` in the workdir.
      **options: as in `export_predictor`.

    Returns:
      The predictor's name, its directory, and whether it was written.
    """
    run = open_run.open_run(workdir)
    if name == BEST and BEST not in run.config.students:
        name = best_student(run)
    directory = directory or workdir / "exported" / name
    if storage.is_remote(directory):
        raise InputError(
            f"out={str(directory)!r} is remote; accepted: --out=DIRECTORY on this "
            "machine"
        )
    return name, directory, export_predictor(run, name, directory, **options)


def best_student(run: Run) -> str:
    """Returns the student with the lowest cNLL on the validation images.

    The temperature is the fitted one in `results.json`; of equal students the first
    one is chosen. Test images are not used.

    Raises:
      InputError: if a completed student is not evaluated since it was trained, or no
        student is complete.
    """
    cnll = {}
    for name in run.config.students:
        if (record := restore.student_stage(run, name).record) is None:
            continue
        row = _row(run, name, record)
        path = run.workdir / "predictions" / f"{name}.npz"
        of = predictions.load_predictions(path)
        pooled = of.validation_probs.mean(0, dtype=np.float64)
        calibrated = metrics.apply_temperature(pooled, row["temperature"])
        cnll[name] = metrics.nll(calibrated, of.validation_labels)
    if not cnll:
        raise InputError(
            f"student={BEST!r} needs a trained student; run launch.distill and "
            "launch.evaluate"
        )
    return min(cnll, key=lambda name: cnll[name])


def _scores_of_members(run: Run) -> export.UncertaintyFn:
    logits = restore.teacher_logits(run, None, run.build_teacher())
    return lambda variables, x: uncertainty.all_scores(logits(variables, x))


def _record(run: Run, name: str) -> dict[str, Any]:
    """Reads the record of the predictor's stage."""
    if name == "teachers":
        return restore.teachers_record(run)
    students = run.config.students
    if name not in students:
        raise InputError(
            f"student={name!r} does not exist in this run; accepted: "
            f"{', '.join(students)}, {BEST}, or teachers for the ensemble"
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
        if (
            rows
            and made_from == record["id"]
            and _is_of_predictions(run, name, rows[0])
        ):
            return rows[0]
    raise InputError(
        f"{name} is not evaluated since it was trained; run launch.evaluate with the "
        "run's --config and --workdir first"
    )


def _is_of_predictions(run: Run, name: str, row: Mapping[str, Any]) -> bool:
    """Returns whether a row has the NLL of the predictions, where these are kept.

    An evaluation that ends between the two leaves the row of the training before.
    """
    path = run.workdir / "predictions" / f"{name}.npz"
    if not path.exists():
        return True
    of = predictions.load_predictions(path)
    nll = metrics.nll(of.test_probs.mean(axis=0, dtype=np.float64), of.test_labels)
    return abs(nll - row["nll"]) < 1e-4


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
        "config": without_paths(json.loads(config.to_json())),
    }


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with the last name of each path.

    An artifact, which others may read, has no paths of the machine that exports, and is
    the same after the files have moved.
    """

    def name(value):
        return value and pathlib.PurePath(value).name

    def of_entry(value):  # a folder or a file, or a set by its name
        return name(value) if value.startswith(("/", "./", "../", "~")) else value

    own = {**config, "teachers_workdir": name(config.get("teachers_workdir"))}
    for section, keys in _PATHS.items():
        names = {key: name(own[section][key]) for key in keys if key in own[section]}
        own[section] = {**own[section], **names}
    for key in ("ood_sets", "corruptions"):
        entries = own["evaluation"].get(key, ())
        own["evaluation"][key] = [of_entry(entry) for entry in entries]
    return own
