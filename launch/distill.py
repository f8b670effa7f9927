"""Distils the teachers into the students of the configuration."""

from collections.abc import Callable

import ml_collections
from absl import flags

from edp import (
    distill,
    feeds,
    rng,
    settings,
    stages,
    steps,
    trackers,
    training,
    workdir,
)
from edp import experiment as experiments

from . import app, signals

_ONLY = flags.DEFINE_list("only", None, "Names of students; all of them if not given.")


def distill_student(experiment: experiments.Experiment, name: str) -> None:
    """Distils one student, unless it is complete already."""
    stage = stages.student_stage(experiment, name)
    with stage.making() as needed:
        if needed:
            _distill(experiment, name, stage)
        else:
            stages.check_complete(stage.path)
            print(f"{name}: complete")


def _distill(
    experiment: experiments.Experiment, name: str, stage: workdir.Stage
) -> None:
    config = settings.student_settings(experiment.config, name)
    # Not of the name: students differ in nothing but their settings.
    key = rng.stream(experiment.key, "student")
    mesh = experiment.mesh
    _, teacher_variables = stages.load_teachers(experiment)
    student, tx, distill_step = steps.create_distillation(experiment, name)
    init_key = rng.stream(key, "init")
    state = distill.create_state(student, tx, init_key, experiment.example)
    shard_optimizer = experiment.config.mesh.shard_optimizer
    state = distill.place(state, mesh, shard_optimizer=shard_optimizer)
    experiments.record(experiment)

    def step(state, resources, inputs):
        train, teacher_variables = resources
        batch, step_key = feeds.draw_batch(experiment, key, state.step, train, inputs)
        return distill_step(state, batch, step_key, teacher_variables)

    def probs_fn(variables, x):
        return student.predict(student.finalise(variables), x)

    seen_as = trackers.Stage(experiment.workdir, name, stage.settings)
    with (
        signals.stop_requests() as should_stop,
        trackers.open_trackers(experiment.config, seen_as) as track,
    ):
        variables, record = training.fit(
            step,
            state,
            (experiment.train, teacher_variables),
            feeds.create_feed(experiment, key, config["batch_size"], None),
            experiments.schedule(experiment, config, config["batch_size"]),
            stage,
            label=name,
            should_stop=should_stop,
            select=stages.create_selection(experiment, config, probs_fn, of_each=False),
            skip_nonfinite=experiment.config.nonfinite == "skip",
            track=track,
        )
    stages.complete(stage, student.finalise(variables), record, num_networks=1)


def check_only(config: ml_collections.ConfigDict) -> None:
    """Raises an InputError if --only names a student that does not exist."""
    for name in _ONLY.value or ():
        settings.student_settings(config, name)


def distill_all(
    experiment: experiments.Experiment, after: Callable[[], None] = lambda: None
) -> None:
    """Distils every student, or those that --only names; calls `after` each time."""
    for name in _ONLY.value or experiment.config.students:
        distill_student(experiment, name)
        after()


if __name__ == "__main__":
    app.main(distill_all, check_only)
