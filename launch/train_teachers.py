"""Trains the teachers: all networks at once, in one jitted step."""

import jax

from edp import (
    ensemble,
    feeds,
    optimizers,
    rng,
    stages,
    trackers,
    training,
    workdir,
)
from edp import experiment as experiments

from . import app, signals


def train_teachers(experiment: experiments.Experiment) -> None:
    """Trains the teachers, unless they are trained already."""
    if experiment.config.teachers_workdir is not None:
        stages.check_complete(experiment.teachers_dir)
        print(f"teachers: those of {experiment.teachers_dir}")
        return
    stage = workdir.Stage(experiment.teachers_dir, experiment.teacher_dependencies)
    with stage.making() as needed:
        if needed:
            _train(experiment, stage)
        else:
            stages.check_complete(stage.path)
            print("teachers: complete")


def _train(experiment: experiments.Experiment, stage: workdir.Stage) -> None:
    config = experiment.config.teachers
    key = rng.stream(experiment.key, "teachers")
    mesh, kind = experiment.mesh, experiment.kind
    num_trained = kind.num_trained(experiment.num_members)
    steps = experiment.steps_per_epoch(config.batch_size)
    model = experiment.build_model()
    tx = optimizers.create_optimizer(kind.training(config), steps)
    init_keys = jax.random.split(rng.stream(key, "init"), num_trained)
    state = ensemble.create_state(model, tx, init_keys, experiment.example)
    state = ensemble.place(state, mesh)
    experiments.record(experiment)

    def step(state, train, inputs):
        batch, step_key = feeds.draw_batch(experiment, key, state.step, train, inputs)
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
    seen_as = trackers.Stage(experiment.workdir, "teachers", stage.settings)
    with (
        signals.stop_requests() as should_stop,
        trackers.open_trackers(experiment.config, seen_as) as track,
    ):
        variables, record = training.fit(
            step,
            state,
            experiment.train,
            feeds.create_feed(
                experiment,
                key,
                config.batch_size,
                num_trained,
                bootstrap=config.bootstrap,
            ),
            experiments.schedule(experiment, config, images_per_step),
            stage,
            label="teachers",
            should_stop=should_stop,
            select=stages.create_teachers_selection(experiment, model),
            skip_nonfinite=experiment.config.nonfinite == "skip",
            track=track,
        )
    num_kept = kind.num_kept(experiment.num_members)
    stages.complete(stage, variables, record, num_kept)


if __name__ == "__main__":
    app.main(train_teachers)
