"""Distils the teachers into the students of the configuration."""

from collections.abc import Callable

import ml_collections
from absl import flags

from edp.experiment import restore, settings, train
from edp.experiment.create import Experiment

from .cli import app, signals

_ONLY = flags.DEFINE_list(
    "only", None, "Students to distil, by name; default: all of the configuration."
)


def distill_student(experiment: Experiment, name: str) -> None:
    """Distils one student unless it is complete."""
    stage = restore.student_stage(experiment, name)
    with stage.making() as needed:
        if needed:
            train.fit_student(experiment, name, stage, signals.stop_requests)
        else:
            restore.check_complete(stage.path)
            print(f"{name}: complete")


def check_only(config: ml_collections.ConfigDict) -> None:
    """Raises an InputError if --only names an unknown student."""
    for name in _ONLY.value or ():
        settings.student_settings(config, name)


def distill_all(
    experiment: Experiment, after: Callable[[], None] = lambda: None
) -> None:
    """Distils every student, or those of --only; calls `after` after each."""
    for name in _ONLY.value or experiment.config.students:
        distill_student(experiment, name)
        after()


if __name__ == "__main__":
    app.main(distill_all, check_only)
