"""Logits of the teachers on the training images, computed once for a student.

A student that sees the same images in every epoch, neither perturbed nor augmented, has
the same targets in every epoch. Of four teachers, their forward passes are more than
half of such a step.
"""

import math
import time
from typing import Any

import jax
import numpy as np

from edp import perturbations
from edp.experiment import restore, step_inputs
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.runtime import sharding

_MOST_BYTES = 2**29
_LOGITS = "logits of the training images"  # in `Experiment.shared`


def compute(
    experiment: Experiment,
    name: str,
    params: Any,
    teacher_variables: Any,
    temperatures: jax.Array | None,
) -> jax.Array | None:
    """Computes the targets of a student for all training images.

    Args:
      experiment: the run.
      name: the student's name.
      params: the student's parameters, or their shapes.
      teacher_variables: the teachers' variables.
      temperatures: see `member_temperatures.read_or_fit`.

    Returns:
      float32 [N, M, K], on the devices; None where `like` is.
    """
    if like(experiment.run, name, params) is None:
        return None
    # Students of a run have the same teachers and differ in their temperatures.
    if _LOGITS not in experiment.shared:
        begun = time.monotonic()
        logits = _logits(experiment, teacher_variables)
        experiment.shared[_LOGITS] = logits, time.monotonic() - begun
    logits, _ = experiment.shared[_LOGITS]
    if temperatures is not None:
        logits = logits / sharding.fetch(temperatures)[:, None]
    return sharding.put(logits, experiment.mesh)


def seconds(experiment: Experiment) -> float:
    """Returns the time of the logits that `compute` used; 0 before it used any.

    It is a part of each student's training, though the students share them.
    """
    return experiment.shared.get(_LOGITS, (None, 0.0))[1]


def _logits(experiment: Experiment, teacher_variables: Any) -> np.ndarray:
    """Computes the teachers' logits [N, M, K] of the training images."""
    run = experiment.run
    logits_fn = restore.teacher_logits(run, experiment.mesh, run.build_teacher())
    predict = restore.create_predict(logits_fn, run.config.evaluation.batch_size)
    logits = predict(teacher_variables, experiment.data.dataset.train.images)
    return np.ascontiguousarray(logits.swapaxes(0, 1))


def like(run: Run, name: str, params: Any) -> jax.ShapeDtypeStruct | None:
    """Returns the shape of the targets that `compute` returns for a student.

    None where they differ from epoch to epoch, where the data are streamed, where they
    need more than 512 MiB, and where training is too short to gain from it.

    Args:
      run: the run.
      name: the student's name.
      params: the student's parameters, or their shapes.
    """
    section, data = run.students[name], run.config.data
    augmented = step_inputs.augments(data)
    if data.stream or augmented or section["num_epochs"] < 2:
        return None
    if not perturbations.create_perturbation(section).identity:
        return None
    shape = (run.num_train, run.num_members, data.num_classes)
    if 4 * math.prod(shape) > _MOST_BYTES or run.trains_briefly(section, params):
        return None
    return jax.ShapeDtypeStruct(shape, np.float32)
