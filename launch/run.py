"""Runs the main job: teachers, students, evaluation, report.

    python -m launch.run --config=configs/digits.py --workdir=runs/digits

Complete stages are not run again; an interrupted stage resumes from its last
checkpoint. Between long stages the report is re-rendered from the complete ones.
"""

import functools

from absl import flags

from edp.experiment import preconditions
from edp.experiment.create import Experiment

from .cli import app
from .cli.evaluation import evaluate, prepare_evaluation
from .cli.live_report import Drafts
from .distill import check_only, compile_ahead, distill_all, names
from .report import write_report
from .train_teachers import train_teachers

flags.declare_key_flag("only")


def run(experiment: Experiment) -> None:
    """Runs all stages in order."""
    preconditions.warn_of_schedules(experiment.run, names(experiment))
    preconditions.warn_of_unread(experiment.run, names(experiment))
    drafts = Drafts(experiment)
    then = functools.partial(prepare_evaluation, experiment)
    ahead = compile_ahead(experiment, then)
    train_teachers(experiment, after_first=ahead.begin_next)
    drafts.draw()
    distill_all(experiment, after=drafts.draw, ahead=ahead)
    evaluate(experiment)
    write_report(experiment.run.workdir)


if __name__ == "__main__":
    app.main(run, check_only)
