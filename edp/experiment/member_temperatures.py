"""Temperatures of the teachers' members, fitted on the validation images."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.experiment import restore
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.metrics.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from edp.runtime import multihost, sharding, storage

# Fits temperatures [M] to probabilities of the members [M, N, K] and labels [N].
_Fit = Callable[[np.ndarray, np.ndarray], Sequence[float]]

MEMBER_TEMPERATURES: dict[str, _Fit | None] = {
    "none": None,
    # Each member is calibrated by itself, before the student's τ.
    "fitted": metrics.member_temperatures,
}
"""Values of `distill.member_temperatures`, and the fit of each; None: no temperatures.

Students begun before the setting existed have "none".
"""


def fit_of(student: Mapping[str, Any]) -> _Fit | None:
    """Returns the fit that the settings of a student name; None for no temperatures."""
    return MEMBER_TEMPERATURES[student.get("member_temperatures", "none")]


def read_or_fit(
    experiment: Experiment, name: str, stage: pathlib.Path, variables: Any
) -> jax.Array | None:
    """Returns the temperatures [M] that the targets of a student are divided by.

    Fits them when the student begins, and writes `member_temperatures.json`, which a
    resumed training reads. Those of other teachers are fitted again.

    Args:
      experiment: the run.
      name: the student's name.
      stage: the directory of the student's stage.
      variables: the teachers' variables.

    Returns:
      float32 [M]; None where the student has no such temperatures.

    Raises:
      InputError: if the file is damaged.
    """
    run, mesh = experiment.run, experiment.mesh
    fit = fit_of(run.students[name])
    if fit is None:
        return None
    path = stage / "member_temperatures.json"
    teachers = restore.teachers_record(run)["id"]
    stored = storage.read_mapping(path) if path.exists() else {}
    stored = multihost.from_first(stored)
    if stored.get("teachers") != teachers:
        probs_fn = restore.teacher_probs(run, mesh, run.build_teacher())
        predict = restore.create_predict(probs_fn, run.config.evaluation.batch_size)
        images, labels = experiment.data.dataset.validation
        temperatures = list(fit(predict(variables, images), labels))
        _warn_of_bounds(name, temperatures)
        stored = {"teachers": teachers, "temperatures": temperatures}
        stored = multihost.from_first(stored)
        storage.write_json(path, stored)
    temperatures = stored.get("temperatures")
    if not _are_positive(temperatures, run.num_members):
        raise InputError(
            f"{path} is damaged: temperatures={temperatures!r}; accepted: "
            f"{run.num_members} positive numbers; remove it to fit them again"
        )
    return sharding.put(np.asarray(temperatures, np.float32), mesh)


def like(run: Run, name: str) -> jax.ShapeDtypeStruct | None:
    """Returns the shape of the result of `read_or_fit`."""
    if fit_of(run.students[name]) is None:
        return None
    return jax.ShapeDtypeStruct((run.num_members,), np.float32)


def _warn_of_bounds(name: str, temperatures: Sequence[float]) -> None:
    """Warns of temperatures that are no optimum, as of members without an error."""
    bounds = (MIN_TEMPERATURE, MAX_TEMPERATURE)
    if at_bound := [m for m, t in enumerate(temperatures) if t in bounds]:
        multihost.warn(
            f"students.{name}.member_temperatures: those of the members "
            f"{', '.join(map(str, at_bound))} are at a bound of the search, "
            f"{MIN_TEMPERATURE} or {MAX_TEMPERATURE}, so these members are not "
            "calibrated; more validation images may help"
        )


def _are_positive(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, float) and value > 0 for value in values)
    )
