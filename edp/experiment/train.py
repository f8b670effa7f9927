"""Trains the students of a run; `train_teachers` trains its teachers."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from edp import distill
from edp.experiment import (
    clean_targets,
    distillation,
    distilled_from,
    member_temperatures,
    restore,
)
from edp.experiment.create import Experiment, record_run
from edp.runtime import best_epoch, loop, steps, trackers
from edp.runtime.feed import Feed, TrainingLength
from edp.runtime.stage import Stage


class Compiled(NamedTuple):
    """Programs of a student's training: `Distillation.init`, and that of `loop.fit`."""

    init: Callable[..., Any]
    run_steps: Callable[..., Any] | None


# Opens while a stage trains; yields a function that returns whether to stop.
StopRequests = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]


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
    temperatures = member_temperatures.read_or_fit(
        experiment, name, stage.path, teacher_variables
    )
    own = distillation.create_distillation(experiment, name)
    ready = Compiled(own.init, None) if compiled is None else compiled()
    state = ready.init(*distillation.init_arguments(experiment, own, teacher_variables))
    shard_optimizer = experiment.run.config.mesh.shard_optimizer
    state = distill.place(state, mesh, shard_optimizer=shard_optimizer)
    record_run(experiment)
    distilled_from.record(experiment.run, stage.path)
    targets = clean_targets.compute(
        experiment, name, state.params, teacher_variables, temperatures
    )

    def probs_fn(variables, x):
        return own.student.predict(own.student.finalise(variables), x)

    variables, record = run_loop(
        experiment,
        stage,
        name,
        own.step,
        state,
        (experiment.data.train, teacher_variables, temperatures, targets),
        own.feed,
        own.length,
        restore.create_selection(experiment, config, probs_fn, of_each=False),
        stop_requests,
        config,
        run_steps=ready.run_steps,
        after_first=after_first,
    )
    if targets is not None:
        record["train_seconds"] += clean_targets.seconds(experiment)
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
    own = distillation.create_distillation(experiment, name)
    teachers = restore.teachers_like(run, run.build_teacher())
    arguments = distillation.init_arguments(experiment, own, teachers)
    init = own.init.lower(*arguments).compile()
    state = jax.eval_shape(own.init, *arguments)
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
    temperatures = member_temperatures.like(run, name)
    targets = clean_targets.like(run, name, state.params)
    run_steps = steps.compile_steps(
        step,
        state,
        (train, teachers, temperatures, targets),
        inputs,
        num_steps,
        runs_briefly=run.trains_briefly(run.students[name], state.params),
    )
    return Compiled(init, run_steps)


def run_loop(
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
