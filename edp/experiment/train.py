"""Trains the stages of a run: its teachers, and each of its students."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from edp import distill, ensemble, perturbations, students
from edp.experiment import restore, step_inputs
from edp.experiment.create import Experiment, record_run
from edp.experiment.run import Run
from edp.runtime import best_epoch, loop, optimizers, rng, steps, trackers, xla
from edp.runtime.feed import Feed, TrainingLength
from edp.runtime.stage import Stage


def create_distillation(
    run: Run, mesh: Mesh | None, name: str
) -> tuple[students.Student, optax.GradientTransformation, Callable[..., Any]]:
    """Creates a student, its optimizer and its training step.

    Returns:
      The student; the optimizer; and (state, batch, key, the teachers' variables) ->
      (state, metrics), `distill.distill_step` with the student's settings.
    """
    config = run.students[name]
    student = restore.create_student(run, name)
    perturb = perturbations.create_perturbation(config)
    steps_per_epoch = run.steps_per_epoch(config["batch_size"])
    tx = optimizers.create_optimizer(config, steps_per_epoch, student.rule)
    model = run.build_teacher()

    def step(state, batch, key, variables):
        return distill.distill_step(
            state,
            batch,
            key,
            student=student,
            teachers=restore.make_teachers(run, mesh, model, variables),
            perturb=perturb,
            tx=tx,
            clean_pass=config["clean_pass"],
            mesh=mesh,
        )

    return student, tx, step


class Compiled(NamedTuple):
    """Programs of a student's training: see `_Distillation` and `loop.fit`."""

    init: Callable[..., Any]
    run_steps: Callable[..., Any] | None


# Opens while a stage trains; yields a function that returns whether to stop.
StopRequests = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]


def fit_teachers(
    experiment: Experiment,
    stage: Stage,
    stop_requests: StopRequests,
    *,
    after_first: Callable[[], None] = lambda: None,
) -> None:
    """Trains all teachers at once in one jitted step; completes the stage.

    Args:
      experiment: the run.
      stage: the teachers' stage, while its lock is held.
      stop_requests: see `StopRequests`.
      after_first: see `loop.fit`.

    Raises:
      Interrupted, loop.NonFinite: as `loop.fit`.
    """
    config = experiment.run.config.teachers
    key = rng.stream(experiment.run.key, "teachers")
    mesh, kind = experiment.mesh, experiment.run.kind
    num_trained = kind.num_trained(experiment.run.num_members, config)
    per_epoch = experiment.run.steps_per_epoch(config.batch_size)
    model = experiment.run.build_teacher()
    tx = optimizers.create_optimizer(kind.training(config), per_epoch)
    init_keys = jax.random.split(rng.stream(key, "init"), num_trained)
    state = ensemble.create_state(
        model,
        tx,
        init_keys,
        experiment.run.example,
        compiler_options=xla.compiler_options(),
    )
    state = ensemble.place(state, mesh)
    augment = step_inputs.create_augment(experiment.run.config.data)
    record_run(experiment)

    def step(state, train, inputs):
        batch, step_key = step_inputs.draw_batch(
            key, state.step, train, inputs, augment=augment, mesh=mesh
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
            label_smoothing=config.get("label_smoothing") or 0.0,
        )

    images_per_step = config.batch_size * num_trained
    variables, record = _fit(
        experiment,
        stage,
        "teachers",
        step,
        state,
        experiment.data.train,
        step_inputs.create_feed(
            experiment,
            key,
            config.batch_size,
            num_trained,
            bootstrap=config.bootstrap,
        ),
        _training_length(experiment.run, config, images_per_step),
        restore.create_teachers_selection(experiment, model),
        stop_requests,
        config,
        after_first=after_first,
    )
    restore.complete(stage, variables, record, experiment.run.num_kept)


def fit_student(
    experiment: Experiment,
    name: str,
    stage: Stage,
    stop_requests: StopRequests,
    *,
    compiled: Callable[[], Compiled] | None = None,
    after_first: Callable[[], None] = lambda: None,
) -> None:
    """Distils the teachers into one student; completes the stage.

    Args:
      experiment: the run; its teachers are trained.
      name: the student's name.
      stage: the student's stage, while its lock is held.
      stop_requests: see `StopRequests`.
      compiled: waits for the result of `compile_student`, and returns or raises it.
      after_first: see `loop.fit`.

    Raises:
      Interrupted, loop.NonFinite: as `loop.fit`.
    """
    config = experiment.run.students[name]
    mesh = experiment.mesh
    _, teacher_variables = restore.load_teachers(experiment.run, mesh)
    own = _distillation(experiment, name)
    ready = Compiled(own.init, None) if compiled is None else compiled()
    state = ready.init(own.init_key, experiment.run.example)
    shard_optimizer = experiment.run.config.mesh.shard_optimizer
    state = distill.place(state, mesh, shard_optimizer=shard_optimizer)
    record_run(experiment)

    def probs_fn(variables, x):
        return own.student.predict(own.student.finalise(variables), x)

    variables, record = _fit(
        experiment,
        stage,
        name,
        own.step,
        state,
        (experiment.data.train, teacher_variables),
        own.feed,
        own.length,
        restore.create_selection(experiment, config, probs_fn, of_each=False),
        stop_requests,
        config,
        run_steps=ready.run_steps,
        after_first=after_first,
    )
    variables = own.student.finalise(variables)
    restore.complete(stage, variables, record, num_networks=1)


def compile_student(experiment: Experiment, name: str) -> Compiled:
    """Compiles the programs of a student's training, before there are arrays.

    Args:
      experiment: the run, on one device, with the data on it; its teachers may be in
        training.
      name: the student's name.
    """
    run = experiment.run
    own = _distillation(experiment, name)
    init = own.init.lower(own.init_key, run.example).compile()
    state = jax.eval_shape(own.init, own.init_key, run.example)
    step = own.step
    decay = run.students[name].get("ema_decay")
    if decay is not None:
        state = jax.eval_shape(steps.begin_average, state)
        step = steps.average_variables(step, decay)
    if run.config.nonfinite == "skip":
        step = steps.skip_nonfinite_updates(step)
    _, num_steps = next(own.length.dispatches(0))
    with contextlib.closing(own.feed(own.length, 0)) as feed:
        arrays = experiment.data.train, next(feed)
    train, inputs = jax.eval_shape(lambda: arrays)
    teachers = restore.teachers_like(run, run.build_teacher())
    run_steps = steps.compile_steps(
        step,
        state,
        (train, teachers),
        inputs,
        num_steps,
        runs_briefly=run.trains_briefly(run.students[name], state.params),
    )
    return Compiled(init, run_steps)


class _Distillation(NamedTuple):
    """What trains a student.

    Attributes:
      student: the student.
      init: (init_key, example input) -> the initial state; jitted.
      init_key: its key.
      step: see `loop.fit`, also of the next two.
      feed: its inputs.
      length: the length of training.
    """

    student: students.Student
    init: Any
    init_key: jax.Array
    step: steps.Step
    feed: Feed
    length: TrainingLength


def _distillation(experiment: Experiment, name: str) -> _Distillation:
    config, mesh = experiment.run.students[name], experiment.mesh
    # Independent of the name: students differ in their settings only.
    key = rng.stream(experiment.run.key, "student")
    init_key = rng.stream(key, "init")
    student, tx, distill_step = create_distillation(experiment.run, mesh, name)
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
        train, teacher_variables = resources
        batch, step_key = step_inputs.draw_batch(
            key, state.step, train, inputs, augment=augment, mesh=mesh
        )
        return distill_step(state, batch, step_key, teacher_variables)

    batch_size = config["batch_size"]
    feed = step_inputs.create_feed(experiment, key, batch_size, None)
    length = _training_length(experiment.run, config, batch_size)
    return _Distillation(student, init, init_key, step, feed, length)


def _fit(
    experiment: Experiment,
    stage: Stage,
    label: str,
    step: Callable[..., Any],
    state: Any,
    resources: Any,
    feed: Feed,
    schedule: TrainingLength,
    select: best_epoch.Selection | None,
    stop_requests: StopRequests,
    section: Mapping[str, Any],
    **options: Any,
) -> tuple[Any, dict[str, Any]]:
    """Calls `loop.fit` with the arguments that all stages of a run share.

    With `ema_decay` in the stage's section, trains with `steps.average_variables` of
    this decay.
    """
    ema_decay = section.get("ema_decay")
    runs_briefly = experiment.run.trains_briefly(section, state.params)
    if ema_decay is not None:
        state = steps.begin_average(state)
        step = steps.average_variables(step, ema_decay)
    seen_as = trackers.TrackedStage(
        experiment.run.workdir, stage.path, label, stage.settings
    )
    with (
        stop_requests() as should_stop,
        trackers.open_trackers(experiment.run.config, seen_as) as track,
    ):
        trained = loop.fit(
            step,
            state,
            resources,
            feed,
            schedule,
            stage,
            label=label,
            should_stop=should_stop,
            select=select,
            runs_briefly=runs_briefly,
            skip_nonfinite=experiment.run.config.nonfinite == "skip",
            track=track,
            **options,
        )
    return trained.variables, trained.record


def _training_length(
    run: Run, section: Mapping[str, Any], images_per_step: int
) -> TrainingLength:
    """Returns the length of training and the intervals at which it saves.

    Args:
      run: the run.
      section: the `teachers` section, or a student's settings.
      images_per_step: images that all networks read in a step.
    """
    return TrainingLength(
        num_epochs=section["num_epochs"],
        steps_per_epoch=run.steps_per_epoch(section["batch_size"]),
        images_per_step=images_per_step,
        checkpoint_minutes=run.config.checkpoint_minutes,
        checkpoint_steps=run.config.checkpoint_steps,
        steps_per_dispatch=run.config.steps_per_dispatch,
    )
