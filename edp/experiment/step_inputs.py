"""What the steps of a run read: batches of data on the device, or streamed to it."""

import contextlib
import functools
import itertools
from collections.abc import Generator

import jax
import numpy as np

from edp import data
from edp.experiment.create import Experiment
from edp.runtime import rng, sharding
from edp.runtime.feed import Feed, Schedule, StepInputs, resident_feed


def create_feed(
    experiment: Experiment,
    key: jax.Array,
    batch_size: int,
    num_members: int | None,
    *,
    bootstrap: bool = False,
) -> Feed:
    """The feed of what `make_batch` takes for each step.

    Args:
      experiment: its training data, on the device or not.
      key: of a stage; its streams 'order', 'crop' and 'bootstrap' are drawn from.
      batch_size: B.
      num_members: M, for a batch per member; or None.
      bootstrap: whether each member has a sample of the data, drawn with replacement.

    Returns:
      A feed of indices [B] or [M, B] into `experiment.train`; of streamed data, of
      the images and labels themselves.
    """
    order = data.EpochOrder(
        _key_data(key, "order"),
        len(experiment.dataset.train.labels),
        batch_size,
        num_members,
        _key_data(key, "bootstrap") if bootstrap else None,
    )
    if experiment.train is not None:
        return resident_feed(order)
    mesh = experiment.mesh
    shape, axes = (batch_size,), (sharding.DATA,)
    if num_members is not None:
        shape, axes = (num_members, *shape), (sharding.MEMBER, *axes)
    reader = data.StepReader(
        experiment.dataset.train,
        order,
        part=sharding.local_part(shape, mesh, *axes),
        crop_seed=tuple(_key_data(key, "crop").tolist()),
    )

    def feed(schedule: Schedule, step: int) -> Generator[StepInputs, None, None]:
        batches = data.read_steps(
            reader, step, schedule.num_steps, experiment.config.data.num_workers
        )
        with contextlib.closing(batches):
            for first, size in schedule.dispatches(step):
                read = itertools.islice(batches, size)
                steps = tuple(np.stack(x) for x in zip(*read, strict=True))
                # Copied while the device computes what it was given before.
                steps = sharding.put_parts(steps, mesh, (size, *shape), None, *axes)
                first = sharding.put_parts(np.asarray(first, np.int32), mesh, ())
                yield StepInputs(first, steps)

    return feed


def _key_data(key: jax.Array, name: str) -> np.ndarray:
    return np.asarray(jax.random.key_data(rng.stream(key, name)))


def draw_batch(
    experiment: Experiment, key: jax.Array, step: jax.Array, train, inputs
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The batch of a step, and a key for the rest of it.

    Args:
      experiment: see `make_batch`.
      key: of a stage; its stream 'step' is drawn from.
      step: the training steps done before.
      train: see `make_batch`.
      inputs: see `make_batch`.
    """
    step_key = jax.random.fold_in(rng.stream(key, "step"), step)
    batch_key, step_key = jax.random.split(step_key)
    return make_batch(experiment, batch_key, train, inputs), step_key


def make_batch(
    experiment: Experiment, key: jax.Array, train, inputs
) -> dict[str, jax.Array]:
    """Makes a batch of what the feed gave, inside the jitted step, and augments it.

    Args:
      experiment: its config says how to augment.
      key: PRNG key.
      train: `experiment.train`, as the step received it.
      inputs: [B] or [M, B] indices to gather; or streamed images and labels.

    Returns:
      `image` float32 in [0, 1] and `label`.
    """
    images, labels = inputs if train is None else data.take(train, inputs)
    augment = functools.partial(
        data.augment,
        crop_padding=experiment.config.data.crop_padding,
        flip=experiment.config.data.flip,
    )
    axes = (sharding.DATA,)
    if labels.ndim == 2:
        key = jax.random.split(key, labels.shape[0])
        augment = jax.vmap(augment)
        axes = (sharding.MEMBER, sharding.DATA)
    batch = {"image": data.to_float(augment(key, images)), "label": labels}
    return sharding.constrain(batch, experiment.mesh, *axes)
