"""The stages of a run that are trained: its teachers, and each of its students."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from edp import distill, ensemble, perturbations, students
from edp.experiment import restore, settings, step_inputs
from edp.experiment.create import Experiment, create_schedule, record_run
from edp.runtime import best_epoch, loop, optimizers, rng, trackers
from edp.runtime.feed import Feed, Schedule
from edp.runtime.stage import Stage


def create_distillation(
    experiment: Experiment, name: str
) -> tuple[students.Student, optax.GradientTransformation, Callable[..., Any]]:
    """The student `name`, its optimizer, and what trains it.

    Returns:
      The student; the optimizer; and (state, batch, key, the teachers' variables) ->
      (state, metrics), `distill.distill_step` with the student's settings.
    """
    config = settings.student_settings(experiment.config, name)
    student = restore.create_student(experiment, name)
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
            teachers=restore.make_teachers(experiment, model, variables),
            perturb=perturb,
            tx=tx,
            clean_pass=config["clean_pass"],
            mesh=experiment.mesh,
        )

    return student, tx, step


# Opened for as long as a training takes: gives a function that tells whether to stop.
StopRequests = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]


def fit_teachers(
    experiment: Experiment,
    stage: Stage,
    stop_requests: StopRequests,
) -> None:
    """Trains the teachers, all at once in one jitted step; completes the stage.

    Args:
      experiment: the run.
      stage: of the teachers, while it is made.
      stop_requests: open while training; gives what is asked whether to stop.

    Raises:
      Interrupted, finite.NonFinite: as `training.fit`.
    """
    config = experiment.config.teachers
    key = rng.stream(experiment.key, "teachers")
    mesh, kind = experiment.mesh, experiment.kind
    num_trained = kind.num_trained(experiment.num_members)
    per_epoch = experiment.steps_per_epoch(config.batch_size)
    model = experiment.build_model()
    tx = optimizers.create_optimizer(kind.training(config), per_epoch)
    init_keys = jax.random.split(rng.stream(key, "init"), num_trained)
    state = ensemble.create_state(model, tx, init_keys, experiment.example)
    state = ensemble.place(state, mesh)
    record_run(experiment)

    def step(state, train, inputs):
        batch, step_key = step_inputs.draw_batch(
            experiment, key, state.step, train, inputs
        )
        return ensemble.train_step(
            state,
            batch,
            step_key,
            model=model,
            tx=tx,
            strategy=config.member_strategy,
            members_at_once=config.members_at_once,
            mesh=mesh,
        )

    images_per_step = config.batch_size * num_trained
    variables, record = _fit(
        experiment,
        stage,
        "teachers",
        step,
        state,
        experiment.train,
        step_inputs.create_feed(
            experiment,
            key,
            config.batch_size,
            num_trained,
            bootstrap=config.bootstrap,
        ),
        create_schedule(experiment, config, images_per_step),
        restore.create_teachers_selection(experiment, model),
        stop_requests,
    )
    num_kept = kind.num_kept(experiment.num_members)
    restore.complete(stage, variables, record, num_kept)


def fit_student(
    experiment: Experiment,
    name: str,
    stage: Stage,
    stop_requests: StopRequests,
) -> None:
    """Distils the teachers into one student; completes the stage.

    Args:
      experiment: the run, its teachers trained.
      name: of the student.
      stage: of the student, while it is made.
      stop_requests: open while training; gives what is asked whether to stop.

    Raises:
      Interrupted, finite.NonFinite: as `training.fit`.
    """
    config = settings.student_settings(experiment.config, name)
    # Not of the name: students differ in nothing but their settings.
    key = rng.stream(experiment.key, "student")
    mesh = experiment.mesh
    _, teacher_variables = restore.load_teachers(experiment)
    student, tx, distill_step = create_distillation(experiment, name)
    init_key = rng.stream(key, "init")
    state = distill.create_state(student, tx, init_key, experiment.example)
    shard_optimizer = experiment.config.mesh.shard_optimizer
    state = distill.place(state, mesh, shard_optimizer=shard_optimizer)
    record_run(experiment)

    def step(state, resources, inputs):
        train, teacher_variables = resources
        batch, step_key = step_inputs.draw_batch(
            experiment, key, state.step, train, inputs
        )
        return distill_step(state, batch, step_key, teacher_variables)

    def probs_fn(variables, x):
        return student.predict(student.finalise(variables), x)

    variables, record = _fit(
        experiment,
        stage,
        name,
        step,
        state,
        (experiment.train, teacher_variables),
        step_inputs.create_feed(experiment, key, config["batch_size"], None),
        create_schedule(experiment, config, config["batch_size"]),
        restore.create_selection(experiment, config, probs_fn, of_each=False),
        stop_requests,
    )
    restore.complete(stage, student.finalise(variables), record, num_networks=1)


def _fit(
    experiment: Experiment,
    stage: Stage,
    label: str,
    step: Callable[..., Any],
    state: Any,
    resources: Any,
    feed: Feed,
    schedule: Schedule,
    select: best_epoch.Selection | None,
    stop_requests: StopRequests,
) -> tuple[Any, dict[str, Any]]:
    """`training.fit`, with what all stages of a run have in common."""
    seen_as = trackers.Stage(experiment.workdir, stage.path, label, stage.settings)
    with (
        stop_requests() as should_stop,
        trackers.open_trackers(experiment.config, seen_as) as track,
    ):
        return loop.fit(
            step,
            state,
            resources,
            feed,
            schedule,
            stage,
            label=label,
            should_stop=should_stop,
            select=select,
            skip_nonfinite=experiment.config.nonfinite == "skip",
            track=track,
        )
