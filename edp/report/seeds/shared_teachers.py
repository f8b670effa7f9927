"""Runs of different seeds whose students have the same teachers."""

from collections.abc import Hashable, Sequence

from edp.report.rows import ensemble_rows, number
from edp.report.seeds.runs import Run


def share_teachers(runs: Sequence[Run]) -> bool:
    """Returns whether any two of these runs have the same teachers.

    Teachers of `teachers_workdir` have the seed of their own run. Networks imported
    into several runs have other seeds there, but the same NLL to the last digit.
    """
    seen: set[Hashable] = set()
    for run in runs:
        rows = ensemble_rows(run.rows)
        own: set[Hashable] = {
            ("seed", seed) for row in rows if (seed := number(row, "seed")) is not None
        }
        own |= {
            ("nll", row["model"], nll)
            for row in rows
            if (nll := number(row, "nll")) is not None
        }
        if own & seen:
            return True
        seen |= own
    return False
