"""The distillation step of each student, as the run is configured."""

from collections.abc import Callable
from typing import Any

import optax

from edp import distill, optimizers, perturbations, settings, stages, students
from edp.experiment import Experiment


def create_distillation(
    experiment: Experiment, name: str
) -> tuple[students.Student, optax.GradientTransformation, Callable[..., Any]]:
    """The student `name`, its optimizer, and what trains it.

    Returns:
      The student; the optimizer; and (state, batch, key, the teachers' variables) ->
      (state, metrics), `distill.distill_step` with the student's settings.
    """
    config = settings.student_settings(experiment.config, name)
    student = stages.create_student(experiment, name)
    perturb = perturbations.create_perturbation(config)
    steps_per_epoch = experiment.steps_per_epoch(config["batch_size"])
    tx = optimizers.create_optimizer(config, steps_per_epoch, student.rule)
    model = experiment.build_model()

    def step(state, batch, key, variables):
        return distill.distill_step(
            state,
            batch,
            key,
            student=student,
            teachers=stages.make_teachers(experiment, model, variables),
            perturb=perturb,
            tx=tx,
            clean_pass=config["clean_pass"],
            mesh=experiment.mesh,
        )

    return student, tx, step
