"""The training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step on what a
feed gives.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


class Schedule(NamedTuple):
    """How long to train and how often to save.

    Attributes:
      num_epochs: passes over the data.
      steps_per_epoch: optimizer steps in one.
      images_per_step: training images that one step reads, for the speed shown.
      checkpoint_minutes: at most this long between two checkpoints, but for the
        dispatch under way; 0 for one at the end of every epoch.
      steps_per_dispatch: steps that the device does as one program, where a step
        is shorter than what it takes to start one. Changes no result.
      checkpoint_steps: a checkpoint whenever so many more steps are done, after the
        dispatch in which they are; None for none besides.
    """

    num_epochs: int
    steps_per_epoch: int
    images_per_step: int
    checkpoint_minutes: float
    steps_per_dispatch: int = 1
    checkpoint_steps: int | None = None

    @property
    def num_steps(self) -> int:
        """All of them."""
        return self.num_epochs * self.steps_per_epoch

    def dispatches(self, step: int) -> Iterator[tuple[int, int]]:
        """(first step, number of steps) of each from `step` on, within an epoch."""
        while step < self.num_steps:
            left = self.steps_per_epoch - step % self.steps_per_epoch
            size = min(self.steps_per_dispatch, left)
            yield step, size
            step += size


class StepInputs(NamedTuple):
    """What successive steps read, on the devices.

    Attributes:
      first: the first of these steps, int32.
      steps: a tree of arrays whose leading axis is the steps from `first` on; more
        of them than a dispatch has, where the next dispatches read on.
    """

    first: jax.Array
    steps: Any


# (schedule, step) -> for each of `schedule.dispatches(step)`, what its steps read.
# It holds no position of its own: from any step on, a feed gives what it would have
# given there had it begun at the first. Closed when training ends or stops.
Feed = Callable[[Schedule, int], Generator[StepInputs, None, None]]


def resident_feed(epoch_order: Callable[[jax.Array], jax.Array]) -> Feed:
    """The feed of data that are on the devices already, among the resources.

    Args:
      epoch_order: epoch (from 0) -> for each of its steps, which examples to read
        [steps, ...]; jittable. Run once an epoch.
    """

    def feed(schedule: Schedule, step: int) -> Generator[StepInputs, None, None]:
        per_epoch = schedule.steps_per_epoch

        @jax.jit
        def inputs_of(epoch):
            return StepInputs(epoch * per_epoch, epoch_order(epoch))

        inputs = None
        for first, _ in schedule.dispatches(step):
            if inputs is None or first % per_epoch == 0:
                inputs = inputs_of(np.int32(first // per_epoch))
            yield inputs

    return feed
