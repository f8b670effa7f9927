"""What trains a student of a run: its functions, its inputs and its length."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from edp import distill, ensemble, perturbations, students
from edp.experiment import restore, step_inputs
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.runtime import optimizers, rng, steps, xla
from edp.runtime.feed import Feed, TrainingLength


class Distillation(NamedTuple):
    """What trains a student.

    Attributes:
      student: the student.
      init: (init_key, example input) -> the initial state; jitted. With
        `Student.begin`, the teachers' variables are a third argument.
      init_key: its key.
      step: see `loop.fit`, also of the next two. Its resources are the training
        images, the teachers' variables, their `member_temperatures` and
        `clean_targets`.
      feed: its inputs.
      length: the length of training.
    """

    student: students.Student
    init: Any
    init_key: jax.Array
    step: steps.Step
    feed: Feed
    length: TrainingLength


def create_distillation(experiment: Experiment, name: str) -> Distillation:
    """Creates what trains a student of a run, from its settings."""
    config, mesh = experiment.run.students[name], experiment.mesh
    # Independent of the name: students differ in their settings only.
    key = rng.stream(experiment.run.key, "student")
    init_key = rng.stream(key, "init")
    student, tx, distill_step = create_step(experiment.run, mesh, name)
    alike = {key: value for key, value in config.items() if key != "perturbation"}
    init = experiment.shared.setdefault(
        (experiment.run.build_model, json.dumps(alike, sort_keys=True)),
        jax.jit(
            functools.partial(distill.create_state, student, tx),
            compiler_options=xla.compiler_options(),
        ),
    )
    augment = step_inputs.create_augment(experiment.run.config.data)

    def step(state, resources, inputs):
        train, teacher_variables, temperatures, targets = resources
        batch, step_key = step_inputs.draw_batch(
            key, state.step, train, inputs, augment=augment, mesh=mesh
        )
        if targets is not None:
            logits = jnp.take(targets, inputs, axis=0, mode="clip")
            batch["teacher_logits"] = jnp.moveaxis(logits, 1, 0)
        return distill_step(state, batch, step_key, teacher_variables, temperatures)

    batch_size = config["batch_size"]
    feed = step_inputs.create_feed(experiment, key, batch_size, None)
    length = experiment.run.training_length(config, batch_size)
    return Distillation(student, init, init_key, step, feed, length)


def init_arguments(
    experiment: Experiment, own: Distillation, teacher_variables: Any
) -> tuple[Any, ...]:
    """Returns the arguments of `Distillation.init`."""
    begin_from: tuple[Any, ...] = ()
    if own.student.begin is not None:
        begin_from = (restore.with_first(experiment.run, teacher_variables),)
    return own.init_key, experiment.run.example, *begin_from


def create_step(
    run: Run, mesh: Mesh | None, name: str
) -> tuple[students.Student, optax.GradientTransformation, Callable[..., Any]]:
    """Creates a student, its optimizer and its training step.

    Returns:
      The student; the optimizer; and (state, batch, key, the teachers' variables, and
      temperatures of the members [M] or None) -> (state, metrics), which is
      `distill.distill_step` with the student's settings.
    """
    config = run.students[name]
    student = restore.create_student(run, name)
    perturb = perturbations.create_perturbation(config)
    steps_per_epoch = run.steps_per_epoch(config["batch_size"])
    tx = optimizers.create_optimizer(config, steps_per_epoch, student.rule)
    model = run.build_teacher()

    def step(state, batch, key, variables, temperatures=None):
        teachers = restore.make_teachers(run, mesh, model, variables)
        if temperatures is not None:
            teachers = ensemble.temper(teachers, temperatures)
        return distill.distill_step(
            state,
            batch,
            key,
            student=student,
            teachers=teachers,
            perturb=perturb,
            tx=tx,
            clean_pass=config["clean_pass"],
            mesh=mesh,
        )

    return student, tx, step
