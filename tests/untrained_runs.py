"""Stages that are complete with networks drawn at random, and no training."""

import jax

from edp import ensemble, stages, workdir


def finish_teachers(experiment, seed):
    model = experiment.build_model()
    keys = jax.random.split(jax.random.key(seed), experiment.num_members)
    variables = jax.jit(ensemble.init, static_argnums=0)(
        model, keys, experiment.example
    )
    stage = workdir.Stage(experiment.teachers_dir, experiment.teacher_dependencies)
    stage.begin()
    stages.complete(stage, variables, {"train_seconds": 1.0}, experiment.num_members)


def finish_student(experiment, name, seed):
    student = stages.create_student(experiment, name)
    init = jax.jit(lambda key, x: student.finalise(student.init(key, x)))
    variables = init(jax.random.key(seed), experiment.example)
    stage = stages.student_stage(experiment, name)
    stage.begin()
    stages.complete(stage, variables, {"train_seconds": 1.0}, 1)
