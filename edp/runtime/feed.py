"""TrainingLength of training steps, and feeds of their inputs."""

import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from edp.runtime import xla


class TrainingLength(NamedTuple):
    """Number of training steps, and when to save.

    Attributes:
      num_epochs: passes over the data.
      steps_per_epoch: optimizer steps in an epoch.
      images_per_step: training images per step, for the throughput shown.
      checkpoint_minutes: longest time between two checkpoints, apart from the
        dispatch in progress; 0 for a checkpoint at the end of every epoch.
      steps_per_dispatch: steps that the device runs as one program, for steps that
        are shorter than the overhead of a dispatch. Does not change results.
      checkpoint_steps: steps between two checkpoints, each saved after the dispatch
        in which they are completed; None for `checkpoint_minutes` alone.
    """

    num_epochs: int
    steps_per_epoch: int
    images_per_step: int
    checkpoint_minutes: float
    steps_per_dispatch: int = 1
    checkpoint_steps: int | None = None

    @property
    def num_steps(self) -> int:
        """The steps of all epochs."""
        return self.num_epochs * self.steps_per_epoch

    def dispatches(self, step: int) -> Iterator[tuple[int, int]]:
        """Yields (first step, number of steps) from `step` on, each in one epoch."""
        while step < self.num_steps:
            left = self.steps_per_epoch - step % self.steps_per_epoch
            size = min(self.steps_per_dispatch, left)
            yield step, size
            step += size


class StepInputs(NamedTuple):
    """Inputs of successive steps, on the devices.

    Attributes:
      first: the first of these steps, int32.
      steps: a tree of arrays whose leading axis is the steps from `first` on; longer
        than a dispatch if the next dispatches read the same inputs.
    """

    first: jax.Array
    steps: Any


# (schedule, step) -> the inputs of each of `schedule.dispatches(step)`. Stateless: from
# any step on, a feed yields what it would yield there if begun at step 0. The loop
# closes it when training ends or stops.
Feed = Callable[[TrainingLength, int], Generator[StepInputs, None, None]]


def resident_feed(epoch_order: Callable[[jax.Array], jax.Array]) -> Feed:
    """Returns the feed of data that the resources hold on the devices.

    Args:
      epoch_order: epoch (from 0) -> the examples that each of its steps reads
        [steps, ...]; jittable. Called once an epoch. If it is a pytree, its arrays are
        arguments of the program, which feeds that differ in these share.
    """
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(epoch_order)):
        epoch_order = jax.tree_util.Partial(epoch_order)

    def feed(schedule: TrainingLength, step: int) -> Generator[StepInputs, None, None]:
        per_epoch = schedule.steps_per_epoch
        inputs_of = _jit_inputs_of()
        inputs = None
        for first, _ in schedule.dispatches(step):
            if inputs is None or first % per_epoch == 0:
                epoch = np.int32(first // per_epoch)
                inputs = inputs_of(epoch_order, epoch, per_epoch)
            yield inputs

    return feed


@functools.cache
def _jit_inputs_of() -> Callable[..., StepInputs]:
    def inputs_of(epoch_order, epoch, per_epoch):
        return StepInputs(epoch * per_epoch, epoch_order(epoch))

    options = xla.compiler_options(runs_briefly=True)
    return jax.jit(inputs_of, static_argnums=2, compiler_options=options)
