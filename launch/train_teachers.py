"""Trains the teachers, all in one jitted step."""

from edp.experiment import restore, train
from edp.experiment.create import Experiment
from edp.runtime.stage import Stage

from .cli import app, signals


def train_teachers(experiment: Experiment) -> None:
    """Trains the teachers unless they are complete."""
    if experiment.config.teachers_workdir is not None:
        restore.check_complete(experiment.teachers_dir)
        print(f"teachers: from {experiment.teachers_dir}")
        return
    stage = Stage(experiment.teachers_dir, experiment.teacher_dependencies)
    with stage.making() as needed:
        if needed:
            train.fit_teachers(experiment, stage, signals.stop_requests)
        else:
            restore.check_complete(stage.path)
            print("teachers: complete")


if __name__ == "__main__":
    app.main(train_teachers)
