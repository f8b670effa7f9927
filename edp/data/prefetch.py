"""Training batches read ahead of the steps that use them."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Hashable

import jax
import jax.numpy as jnp
import numpy as np

from edp.data.arrays import Split
from edp.data.augmentation import bootstrap_samples, epoch_order

_STATIC = {"static": True}  # not an array, for `register_dataclass`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class EpochOrder:
    """Callable: epoch -> order of its examples (see `epoch_order`).

    Jittable and picklable; a pytree of its keys.

    Attributes:
      key_data: `jax.random.key_data` of the key of all epochs.
      num_examples: see `epoch_order`.
      batch_size: see `epoch_order`.
      num_members: see `epoch_order`.
      bootstrap_key_data: None; or `jax.random.key_data` of the key of the members'
        bootstrap samples, which are the same in every epoch. An epoch visits all N
        draws of a sample, repeated examples included.
      impl: `jax.random.key_impl` of both keys; None: JAX's default.
    """

    key_data: np.ndarray
    num_examples: int = dataclasses.field(metadata=_STATIC)
    batch_size: int = dataclasses.field(metadata=_STATIC)
    num_members: int | None = dataclasses.field(default=None, metadata=_STATIC)
    bootstrap_key_data: np.ndarray | None = None
    impl: Hashable | None = dataclasses.field(default=None, metadata=_STATIC)

    def __call__(self, epoch: jax.Array) -> jax.Array:
        wrap = functools.partial(jax.random.wrap_key_data, impl=self.impl)
        key = jax.random.fold_in(wrap(self.key_data), epoch)
        order = epoch_order(key, self.num_examples, self.batch_size, self.num_members)
        if self.bootstrap_key_data is None:
            return order
        key = wrap(self.bootstrap_key_data)
        # Recomputed each epoch: stored, they would take M N numbers in every process.
        samples = bootstrap_samples(key, self.num_examples, self.num_members)
        return jax.vmap(jnp.take, in_axes=(0, 1), out_axes=1)(samples, order)


class StepReader:
    """Callable: step -> images and labels of its batch. Picklable.

    The result depends on the step alone, so reading can begin at any step and be
    divided among processes. Each member has its own batches, so M members decode M
    batches per step. An example that occurs twice in a bootstrap sample gets the same
    crop both times in an epoch.
    """

    def __init__(
        self,
        split: Split,
        order: EpochOrder,
        part: tuple[slice, ...],
        crop_seed: tuple[int, ...],
    ):
        """Stores the arguments; reads no images.

        Args:
          split: examples whose images are `Records`.
          order: of the examples in each epoch.
          part: slices of each batch [B] or [M, B] to read.
          crop_seed: seeds the random crops, together with the epoch, member and
            example.
        """
        self._split, self._order = split, order
        self._part, self._crop_seed = part, crop_seed
        self._steps_per_epoch = order.num_examples // order.batch_size
        self._epoch, self._batches = None, None

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images uint8 [..., H, W, C] and labels [...] of its part."""
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
        """Returns a copy that decodes in one thread, for one of several processes."""
        images = dataclasses.replace(self._split.images, num_threads=1)
        split = self._split._replace(images=images)
        return StepReader(split, self._order, self._part, self._crop_seed)


def read_steps(
    reader: StepReader, first: int, last: int, num_workers: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yields the batches of the steps `first` to `last` - 1, read ahead.

    Args:
      reader: step -> batch.
      first: first step.
      last: step at which reading ends (exclusive).
      num_workers: processes that read one step each; 0: threads of this process.

    Yields:
      Images and labels.
    """
    import grain  # Slow to import.

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
    """Sets a worker up: CPU only, Ctrl-C ignored, ends with the parent process."""
    del worker, num_workers
    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    # A parent that is killed cannot stop its workers.
    threading.Thread(target=end_with_parent, daemon=True).start()
