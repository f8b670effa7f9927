"""Re-renders the report during a run, between its stages."""

import time
from collections.abc import Callable

from edp import report
from edp.evaluation import results
from edp.experiment.create import Experiment
from edp.runtime import multihost, storage

# Renders after this time at the earliest, and for at most this share of the time.
_LEAST_SECONDS = 60.0
_SHARE = 0.05


class Drafts:
    """Writes `results.json` and the report of the complete stages, if that is cheap.

    Each network predicts once; the finished run reuses these predictions.

    Args:
      experiment: the run.
      clock: returns seconds.
    """

    def __init__(
        self, experiment: Experiment, clock: Callable[[], float] = time.monotonic
    ):
        self._experiment, self._clock = experiment, clock
        self._drawn, self._cost = clock(), 0.0

    def draw(self) -> None:
        """Renders the report if it is due; call it after each stage."""
        started = self._clock()
        wanted = max(_LEAST_SECONDS, self._cost / _SHARE)
        if not multihost.from_first(started - self._drawn >= wanted):
            return
        rows = results.collect_rows(self._experiment, tell=lambda line: None)
        storage.write_json(self._experiment.workdir / "results.json", rows)
        if multihost.is_first():
            path = report.write_report(self._experiment.workdir)
            print(f"report of the complete stages: {path}", flush=True)
        self._drawn = self._clock()
        self._cost = self._drawn - started
