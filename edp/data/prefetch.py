"""Batches for training that are read while the last ones are computed on."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator

import jax
import jax.numpy as jnp
import numpy as np

from edp.data.arrays import Split
from edp.data.augmentation import bootstrap_samples, epoch_order


@dataclasses.dataclass(frozen=True, eq=False)
class EpochOrder:
    """epoch -> the order in which it visits the examples; jittable, can be pickled.

    See `epoch_order` for the other attributes and the result.

    Attributes:
      key_data: of the random key of all epochs, as `jax.random.key_data` gives it.
      bootstrap_key_data: None; or of the key of the members' bootstrap samples, the
        same in every epoch, each of which visits all N draws of a sample, those of
        one example as examples of their own.
    """

    key_data: np.ndarray
    num_examples: int
    batch_size: int
    num_members: int | None = None
    bootstrap_key_data: np.ndarray | None = None

    def __call__(self, epoch: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(self.key_data), epoch)
        order = epoch_order(key, self.num_examples, self.batch_size, self.num_members)
        if self.bootstrap_key_data is None:
            return order
        key = jax.random.wrap_key_data(self.bootstrap_key_data)
        # Drawn anew each epoch: held, they would be M N numbers in every process.
        samples = bootstrap_samples(key, self.num_examples, self.num_members)
        return jax.vmap(jnp.take, in_axes=(0, 1), out_axes=1)(samples, order)


class StepReader:
    """step -> the images and labels that it trains on. Can be pickled.

    What is read follows from the step alone, so that reading can begin at any and be
    divided among processes. Members see batches of their own: M times the reading
    and decoding of one batch. An example that a bootstrap sample holds twice is cropped
    alike both times in an epoch.
    """

    def __init__(
        self,
        split: Split,
        order: EpochOrder,
        part: tuple[slice, ...],
        crop_seed: tuple[int, ...],
    ):
        """Reads nothing yet.

        Args:
          split: whose images are `Records`.
          order: in which examples are visited.
          part: of each batch [B] or [M, B], the part to read.
          crop_seed: of all random crops, with the epoch, member and example.
        """
        self._split, self._order = split, order
        self._part, self._crop_seed = part, crop_seed
        self._steps_per_epoch = order.num_examples // order.batch_size
        self._epoch, self._batches = None, None

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [..., H, W, C] and labels [...] of the part of a batch."""
        epoch, place = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._batches = np.asarray(jax.jit(self._order)(np.int32(epoch)))
            self._epoch = epoch
        batch = self._batches[place]
        members = np.zeros_like(batch)
        if batch.ndim == 2:
            members += np.arange(len(batch))[:, None]
        indices, members = batch[self._part], members[self._part]
        seeds = [
            (*self._crop_seed, epoch, member, index)
            for member, index in zip(members.flat, indices.flat, strict=True)
        ]
        images = self._split.images.read(indices.ravel(), seeds)
        images = images.reshape(*indices.shape, *images.shape[1:])
        return images, self._split.labels[indices]

    def decoding_alone(self) -> "StepReader":
        """The same for a process among several, with one thread."""
        images = dataclasses.replace(self._split.images, num_threads=1)
        split = self._split._replace(images=images)
        return StepReader(split, self._order, self._part, self._crop_seed)


def read_steps(
    reader: StepReader, first: int, last: int, num_workers: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """What `reader` gives for the steps from `first` up to `last`, read ahead.

    Args:
      reader: see there.
      first: step.
      last: step, not read any more.
      num_workers: processes that read a step each; 0 for threads of this one.

    Yields:
      Images and labels.
    """
    import grain  # Slow to import, and only needed here.

    # One step ahead, in a thread of this process or in each of the others.
    ahead = 0 if num_workers else 1
    options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    processes = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1)
    if num_workers:
        reader = reader.decoding_alone()
    steps = grain.MapDataset.range(first, last).map(reader).to_iter_dataset(options)
    batches = iter(steps.mp_prefetch(processes, worker_init_fn=_begin_worker))
    try:
        yield from batches
    finally:
        batches.close()


def _begin_worker(worker: int, num_workers: int) -> None:
    """Leaves accelerators and Ctrl-C to the process that trains, and ends with it."""
    del worker, num_workers
    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    # One that is killed has no time to stop those that read for it.
    threading.Thread(target=end_with_parent, daemon=True).start()
