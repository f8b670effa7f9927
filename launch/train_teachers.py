"""Trains the teachers, all in one jitted step, or group by group."""

from collections.abc import Callable

from edp.experiment import preconditions, restore
from edp.experiment import train_teachers as training
from edp.experiment.create import Experiment
from edp.runtime.stage import Stage

from .cli import app, signals


def train_teachers(
    experiment: Experiment, after_first: Callable[[], None] = lambda: None
) -> None:
    """Trains the teachers unless they are complete; see `loop.fit`."""
    if experiment.run.config.teachers_workdir is not None:
        restore.check_complete(experiment.run.teachers_dir)
        print(f"teachers: from {experiment.run.teachers_dir}")
        preconditions.warn_of_other_settings(experiment.run)
        return
    stage = Stage(experiment.run.teachers_dir, experiment.run.teacher_dependencies)
    with stage.making() as needed:
        if needed:
            groups = experiment.run.groups
            fit = training.fit_groups if groups else training.fit_teachers
            fit(experiment, stage, signals.stop_requests, after_first=after_first)
        else:
            restore.check_complete(stage.path)
            print("teachers: complete")


def main(experiment: Experiment) -> None:
    """Trains the teachers, after a warning of a schedule that is cut off."""
    preconditions.warn_of_schedules(experiment.run)
    train_teachers(experiment)


if __name__ == "__main__":
    app.main(main)
