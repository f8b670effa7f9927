"""Distils the teachers into the students of the configuration."""

from collections.abc import Callable, Iterable

import ml_collections
from absl import flags

from edp.experiment import preconditions, restore, settings, train
from edp.experiment.ahead import Ahead
from edp.experiment.create import Experiment

from .cli import app, signals

_ONLY = flags.DEFINE_list(
    "only", None, "Students to distil, by name; default: all of the configuration."
)


def distill_student(
    experiment: Experiment, name: str, ahead: Ahead | None = None
) -> None:
    """Distils one student unless it is complete."""
    ahead = ahead or Ahead(experiment, [name])
    stage = restore.student_stage(experiment.run, name)
    with stage.making() as needed:
        if needed:
            train.fit_student(
                experiment,
                name,
                stage,
                signals.stop_requests,
                compiled=ahead.compiled(name),
                after_first=ahead.begin_next,
            )
        else:
            restore.check_complete(stage.path)
            print(f"{name}: complete")


def check_only(config: ml_collections.ConfigDict) -> None:
    """Raises an InputError if --only names an unknown student."""
    for name in _ONLY.value or ():
        settings.student_settings(config, name)


def compile_ahead(
    experiment: Experiment, then: Callable[[], None] = lambda: None
) -> Ahead:
    """Prepares to compile the steps of the students that `distill_all` distils.

    Args:
      experiment: the run.
      then: see `Ahead`.
    """
    return Ahead(experiment, names(experiment), then)


def distill_all(
    experiment: Experiment,
    after: Callable[[], None] = lambda: None,
    ahead: Ahead | None = None,
) -> None:
    """Distils every student, or those of --only; calls `after` after each."""
    ahead = ahead or compile_ahead(experiment)
    for name in names(experiment):
        distill_student(experiment, name, ahead)
        after()


def names(experiment: Experiment) -> Iterable[str]:
    """Returns the names of the students that `distill_all` distils."""
    return _ONLY.value or experiment.run.config.students


def main(experiment: Experiment) -> None:
    """Distils the students, after warnings of their settings."""
    preconditions.warn_of_schedules(experiment.run, names(experiment))
    preconditions.warn_of_unread(experiment.run, names(experiment))
    distill_all(experiment)


if __name__ == "__main__":
    app.main(main, check_only)
