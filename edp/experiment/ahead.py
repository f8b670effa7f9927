"""Compiles the next student's step while another stage trains."""

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import jax

from edp.experiment import restore, train
from edp.experiment.create import Experiment
from edp.runtime import background


class Ahead:
    """Compiles students' steps in their order, each while the stage before trains.

    Only where the CPU is the one device: on others the compiler measures kernels on
    the busy device, and processes must run the same programs in the same order. There
    is nothing to gain for streamed data, whose epochs are long.

    `compiled` hands over each result, or raises what compiling raised.
    """

    def __init__(
        self,
        experiment: Experiment,
        names: Iterable[str],
        then: Callable[[], None] = lambda: None,
    ):
        """Compiles nothing yet.

        Args:
          experiment: the run.
          names: the students to train, in order.
          then: other work ahead, begun while the last of them trains.
        """
        self._then: Callable[[], None] | None = then
        self._experiment, self._names = experiment, list(names)
        self._futures: dict[str, Future[train.Compiled]] = {}
        self._is_possible = (
            jax.default_backend() == "cpu"
            and jax.device_count() == 1
            and experiment.mesh is None
            and experiment.data.train is not None
        )

    def begin_next(self) -> None:
        """Begins to compile the first incomplete student that was not begun before."""
        while self._is_possible and self._names:
            name = self._names.pop(0)
            if restore.student_stage(self._experiment.run, name).record is None:
                self._futures[name] = background.begin(
                    functools.partial(train.compile_student, self._experiment, name)
                )
                return
        if self._is_possible and self._then is not None:
            background.begin(self._then)
            self._then = None

    def compiled(self, name: str) -> Callable[[], train.Compiled] | None:
        """Returns what waits for a student's step; None if it was not begun."""
        if name in self._names:
            self._names.remove(name)
        future = self._futures.pop(name, None)
        return future and future.result
