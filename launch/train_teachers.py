"""Trains the teachers: all networks at once, in one jitted step."""

from edp import experiment as experiments
from edp import fitting, stages, workdir

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
            fitting.fit_teachers(experiment, stage, signals.stop_requests)
        else:
            stages.check_complete(stage.path)
            print("teachers: complete")


if __name__ == "__main__":
    app.main(train_teachers)
