"""Statistics of batch normalisation of weights that no training step has seen."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

from edp import ensemble
from edp.errors import InputError
from edp.experiment import step_inputs
from edp.experiment.create import Experiment
from edp.runtime import xla
from edp.runtime.feed import TrainingLength

_NAME = "batch_stats"
# Statistics from which the momentum is found: so large that those of a batch, added to
# a share of them, leave its rounding error at that of one number.
_LARGE = 2.0**20


def recompute(
    experiment: Experiment, model: Any, variables: Any, key: jax.Array
) -> Any:
    """Replaces the statistics by the mean over the batches of one epoch.

    As for averaged weights (Izmailov et al., 2018, arXiv 1803.05407, section 3.2), but
    every batch has the same weight. The batches are those of a training epoch,
    augmented, of the size `teachers.batch_size`; all networks read the same. Each layer
    can have its own momentum.

    Args:
      experiment: the run with its training data.
      model: the networks' Flax module.
      variables: of M networks, stacked.
      key: PRNG key of the batches.

    Returns:
      The variables; as they were if the model has no such statistics.

    Raises:
      InputError: if training does not update a statistic.
    """
    if _NAME not in variables:
        return variables
    config, mesh = experiment.run.config, experiment.mesh
    batch_size = config.teachers.batch_size
    augment = step_inputs.create_augment(config.data)
    rest = {name: tree for name, tree in variables.items() if name != _NAME}
    zeros = jax.tree.map(jnp.zeros_like, variables[_NAME])

    def moments(rest, zeros, x, key):
        def updated(former):
            _, new = model.apply(
                {**rest, _NAME: former},
                x,
                train=True,
                mutable=[_NAME],
                rngs={"dropout": key},
            )
            return new[_NAME]

        def of_batch(first, second):
            momentum = (second - first) / _LARGE
            return first / (1 - momentum)

        large = jax.tree.map(lambda leaf: jnp.full_like(leaf, _LARGE), zeros)
        return jax.tree.map(of_batch, updated(zeros), updated(large))

    def add(total, rest, train, inputs, step):
        own = jax.tree.map(lambda x: x[step - inputs.first], inputs.steps)
        batch, step_key = step_inputs.draw_batch(
            key, step, train, own, augment=augment, mesh=mesh
        )
        mapped = ensemble.member_map(
            moments,
            (0, 0, None, None),
            strategy=config.teachers.member_strategy,
        )
        found = mapped(rest, zeros, batch["image"], step_key)
        return jax.tree.map(jnp.add, total, found)

    length = TrainingLength(
        num_epochs=1,
        steps_per_epoch=experiment.run.steps_per_epoch(batch_size),
        images_per_step=batch_size,
        checkpoint_minutes=0.0,
    )
    add = jax.jit(add, compiler_options=xla.compiler_options())
    total = zeros
    feed = step_inputs.create_feed(experiment, key, batch_size, None)
    with contextlib.closing(feed(length, 0)) as fed:
        for (step, _), inputs in zip(length.dispatches(0), fed, strict=True):
            total = add(total, rest, experiment.data.train, inputs, jnp.int32(step))
    found = jax.tree.map(lambda leaf: leaf / length.num_steps, total)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        if not jnp.isfinite(leaf).all():
            raise InputError(
                f"{_NAME}{jax.tree_util.keystr(path)} is not updated in training and "
                "cannot be computed for these weights; accepted: layers that keep "
                "running averages with a momentum below 1"
            )
    return {**rest, _NAME: found}
