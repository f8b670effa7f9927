"""Inputs of training steps: batches gathered on the device, or streamed to it."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator

import jax
import ml_collections
import numpy as np

from edp import data
from edp.experiment.create import Experiment
from edp.runtime import rng, sharding
from edp.runtime.feed import Feed, StepInputs, TrainingLength, resident_feed


def create_feed(
    experiment: Experiment,
    key: jax.Array,
    batch_size: int,
    num_members: int | None,
    *,
    bootstrap: bool = False,
) -> Feed:
    """Creates the feed of `inputs` that `make_batch` takes at each step.

    Args:
      experiment: the run with its training data.
      key: the key of a stage; its streams 'order', 'crop' and 'bootstrap' are used.
      batch_size: B.
      num_members: M, for a batch per member; None for one batch.
      bootstrap: whether each member trains on a bootstrap sample of the data.

    Returns:
      A feed of indices [B] or [M, B] into `RunData.train`; of streamed data, of the
      images and labels themselves.
    """
    order = data.EpochOrder(
        _key_data(key, "order"),
        len(experiment.data.dataset.train.labels),
        batch_size,
        num_members,
        _key_data(key, "bootstrap") if bootstrap else None,
    )
    if experiment.data.train is not None:
        return resident_feed(order)
    mesh = experiment.mesh
    shape, axes = (batch_size,), (sharding.DATA,)
    if num_members is not None:
        shape, axes = (num_members, *shape), (sharding.MEMBER, *axes)
    reader = data.StepReader(
        experiment.data.dataset.train,
        order,
        part=sharding.local_part(shape, mesh, *axes),
        crop_seed=tuple(_key_data(key, "crop").tolist()),
    )

    def feed(schedule: TrainingLength, step: int) -> Generator[StepInputs, None, None]:
        batches = data.read_steps(
            reader, step, schedule.num_steps, experiment.run.config.data.num_workers
        )
        with contextlib.closing(batches):
            for first, size in schedule.dispatches(step):
                read = itertools.islice(batches, size)
                steps = tuple(np.stack(x) for x in zip(*read, strict=True))
                # Copied while the device computes the dispatch before.
                steps = sharding.put_parts(steps, mesh, (size, *shape), None, *axes)
                first = sharding.put_parts(np.asarray(first, np.int32), mesh, ())
                yield StepInputs(first, steps)

    return feed


def _key_data(key: jax.Array, name: str) -> np.ndarray:
    return np.asarray(jax.random.key_data(rng.stream(key, name)))


# (key, images uint8 [B, H, W, C]) -> images of the same shape.
Augment = Callable[[jax.Array, jax.Array], jax.Array]


def create_augment(config: ml_collections.ConfigDict) -> Augment:
    """Returns `data.augment` with the settings of the `data` section."""
    return functools.partial(
        data.augment, crop_padding=config.crop_padding, flip=config.flip
    )


def augments(config: ml_collections.ConfigDict) -> bool:
    """Returns whether `create_augment` changes images."""
    return config.crop_padding > 0 or config.flip


def draw_batch(
    key: jax.Array,
    step: jax.Array,
    train,
    inputs,
    *,
    augment: Augment,
    mesh: jax.sharding.Mesh | None,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Makes the batch of a step, and a key for the rest of the step.

    Args:
      key: the key of a stage; its stream 'step' is used.
      step: number of training steps done before.
      train: see `make_batch`.
      inputs: see `make_batch`.
      augment: see `make_batch`.
      mesh: see `make_batch`.
    """
    step_key = jax.random.fold_in(rng.stream(key, "step"), step)
    batch_key, step_key = jax.random.split(step_key)
    return make_batch(batch_key, train, inputs, augment=augment, mesh=mesh), step_key


def make_batch(
    key: jax.Array,
    train,
    inputs,
    *,
    augment: Augment,
    mesh: jax.sharding.Mesh | None,
) -> dict[str, jax.Array]:
    """Makes an augmented batch from the feed's values, inside the jitted step.

    Args:
      key: PRNG key.
      train: `RunData.train`, as the step received it.
      inputs: [B] or [M, B] indices to gather; or streamed images and labels.
      augment: augments a batch of images.
      mesh: the devices, or None for one device.

    Returns:
      `image` float32 in [0, 1] and `label`, integers or distributions.
    """
    images, labels = inputs if train is None else data.take(train, inputs)
    axes = (sharding.DATA,)
    if images.ndim == 5:
        key = jax.random.split(key, images.shape[0])
        augment = jax.vmap(augment)
        axes = (sharding.MEMBER, sharding.DATA)
    batch = {"image": data.to_float(augment(key, images)), "label": labels}
    return sharding.constrain(batch, mesh, *axes)
