"""Trains with the loop of the commands, without a configuration."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edp.data import EpochOrder
from edp.errors import InputError
from edp.runtime import best_epoch, feed, loop, rng, sharding, storage
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState

# (state, batch, key, *args) -> (state, metrics), such as `distill.distill_step`.
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]
# Epoch, from 0 -> its batches, trees of arrays of equal shapes.
Batches = Callable[[int], Iterable[Any]]
# Largest difference of the moments of an array, relative to its root mean square, at
# which two initial states count as the same one.
_START_TOLERANCE = 1e-5


class Fitted(NamedTuple):
    """Result of `fit`.

    Attributes:
      state: the state after the last step.
      variables: those of the best epoch with `validate`, else of `state`.
      history: a row per epoch: `epoch` from 1, `step`, the means of the metrics and,
        with `validate`, `validation_score`.
      record: `train_seconds` and others; with `validate`, `selected_epoch` and its
        `validation_score`. See `runtime.loop.Trained`.
    """

    state: TrainState
    variables: Any
    history: list[dict[str, Any]]
    record: dict[str, Any]


def fit(
    step: Step,
    state: TrainState,
    data: Any,
    key: jax.Array,
    *,
    num_epochs: int,
    batch_size: int,
    steps_per_epoch: int | None = None,
    args: Sequence[Any] = (),
    validate: Callable[[Any], Any] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    checkpoint_minutes: float = 5.0,
    skip_nonfinite: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    label: str = "fit",
) -> Fitted:
    """Trains for some epochs and returns the state; shows the progress on stderr.

    Step t, from 0, has the key `fold_in(rng.stream(key, "step"), t)`, and arrays are
    shuffled with the stream "order". So nothing but `state` is carried from step to
    step, and a resumed run computes what an uninterrupted one would.

    Args:
      step: (state, batch, key, ...) -> (state, metrics), with `loss` and others, each
        [] or the members' [M]; `args` follow the key. Pure; jitted here.
      state: the initial state, from `distill.create_state`, `ensemble.create_state` or
        `TrainState(step, params, model_state, opt_state)`; it is not changed. Its
        `step`, 0 in these, counts towards `num_epochs`.
      data: a tree of arrays [N, ...], kept on the device, of which each epoch visits
        shuffled batches [B, ...], without a last, smaller one; or a function of the
        epoch, from 0, to an iterable of its batches, for data that are read or
        augmented on the host.
      key: PRNG key.
      num_epochs: epochs.
      batch_size: B; for a function, only the progress depends on it.
      steps_per_epoch: batches of an epoch that are used, for a function.
      args: further arguments of `step`, trees of arrays such as the teachers'
        variables. Arrays that `step` captures are compiled in as constants instead.
      validate: `state.variables` -> a score, higher is better; called after each
        epoch. The best epoch's variables are kept, each member's own if it returns
        [M].
      workdir: directory for checkpoints and `metrics.jsonl`. Calling `fit` again with
        equal arguments resumes, or returns the finished result. None: nothing is
        written.
      settings: JSON values that `step` depends on, such as its learning rate. The
        workdir records them with `num_epochs`, the key, digests of `args` and of
        arrays, and moments of `state`, and is refused for others.
      checkpoint_minutes: longest time between two checkpoints; 0: each epoch.
      skip_nonfinite: skip updates whose loss or gradients are not finite.
      should_stop: called before each step; True saves and raises `loop.Interrupted`.
      on_epoch: called with each new row of the history.
      label: name shown in the progress.

    Raises:
      InputError: for arguments that do not fit each other, a state whose `step` leaves
        nothing to train, a `step` that does not return such a state and metrics, or a
        workdir of other settings, in use, or with files of another training.
      loop.NonFinite: if a loss or gradient is not finite, at the end of the epoch.
      loop.Interrupted: if `should_stop` returned True.
    """
    if not isinstance(state, TrainState):
        raise InputError(
            f"state is a {type(state).__name__}; accepted: edp.runtime.state.TrainState"
        )
    for name, value in (("num_epochs", num_epochs), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name}={value}; accepted: at least 1")
    if callable(data):
        train, fed = None, _feed_of_batches(data)
        if steps_per_epoch is None or steps_per_epoch < 1:
            raise InputError(
                f"steps_per_epoch={steps_per_epoch} for a function; accepted: at least "
                "1"
            )
    else:
        train = jax.tree.map(jnp.asarray, data)
        num_examples = _num_examples(train, batch_size, steps_per_epoch)
        steps_per_epoch = num_examples // batch_size
        key_data = np.asarray(jax.random.key_data(rng.stream(key, "order")))
        order = EpochOrder(
            key_data, num_examples, batch_size, impl=jax.random.key_impl(key)
        )
        fed = feed.resident_feed(order)
    if state.step >= num_epochs * steps_per_epoch:
        raise InputError(
            f"state.step={state.step} leaves nothing to train in num_epochs="
            f"{num_epochs} of {steps_per_epoch} steps; accepted: more epochs, or "
            "state._replace(step=jnp.int32(0)) to begin anew"
        )
    stage = None
    if workdir is not None:
        depends_on = {
            "num_epochs": num_epochs,
            "batch_size": batch_size,
            "steps_per_epoch": steps_per_epoch,
            "key": jax.random.key_data(key).tolist(),
            "data sha256": None if train is None else _digest(train),
            "args sha256": _digest(args),
            "settings": json.loads(json.dumps(dict(settings or {}))),
        }
        # Keys of two implementations may have equal data.
        if (impl := str(jax.random.key_impl(key))) != "threefry2x32":
            depends_on["key implementation"] = impl
        stage = Stage(storage.as_path(workdir), depends_on)
    select = None
    if validate is not None:
        select = best_epoch.by_score("validation_score", _checked_score(validate))
    length = feed.TrainingLength(
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
        images_per_step=batch_size,
        checkpoint_minutes=checkpoint_minutes,
    )
    history: list[dict[str, Any]] = []

    def add_row(row):
        history.append(row)
        on_epoch(row)

    def run():
        return loop.fit(
            _loop_step(step, key),
            jax.tree.map(jnp.copy, state),  # the loop donates its buffers
            (train, tuple(args)),
            fed,
            length,
            stage,
            label=label,
            should_stop=should_stop,
            select=select,
            skip_nonfinite=skip_nonfinite,
            track=add_row,
        )

    if stage is None:
        trained = run()
    else:
        with stage.making():
            stage.begin()
            _check_start(stage, state)
            trained = run()
        history = [json.loads(line) for line in stage.log.read_text().splitlines()]
    return Fitted(trained.state, trained.variables, history, trained.record)


def _check_start(stage: Stage, state: TrainState) -> None:
    """Writes moments of the initial state; compares them where there are checkpoints.

    They are compared up to rounding, so that another machine, which may initialise
    with other last digits, can resume.

    Raises:
      InputError: if the state is another one; names an array that differs.
    """
    path, directory = stage.path / "start.json", stage.checkpoints
    found = {
        jax.tree_util.keystr(where, simple=True, separator="."): _moments(leaf)
        for where, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    has_begun = directory.is_dir() and any(
        one.name.isdigit() for one in directory.iterdir()
    )
    if not has_begun or not path.exists():  # as in workdirs of earlier versions
        storage.write_json(path, found)
        return
    stored = storage.read_mapping(path)
    for name in sorted(found.keys() | stored):
        before, now = (np.array(of.get(name), float) for of in (stored, found))
        tolerance = _START_TOLERANCE * np.nan_to_num(before).max(initial=0.0)
        if before.shape != now.shape or not np.allclose(
            before, now, rtol=0, atol=tolerance, equal_nan=True
        ):
            raise InputError(
                f"state differs in {name} from the state that {stage.path} was begun "
                "with; accepted: the same initial state, or another workdir"
            )


def _moments(leaf: Any) -> list[float | None]:
    """Returns the mean and the root mean square of an array; None if not finite."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(sharding.fetch(jnp.asarray(leaf)), np.float64)
    if not array.size:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(array.mean()), float(np.sqrt(np.square(array).mean()))
    return [number if math.isfinite(number) else None for number in found]


def _num_examples(train, batch_size, steps_per_epoch) -> int:
    """Returns N of arrays [N, ...]; raises an InputError where N or B does not fit."""
    sizes = sorted({leaf.shape[:1] for leaf in jax.tree.leaves(train)})
    if len(sizes) != 1 or sizes == [()]:
        raise InputError(
            f"data has arrays of {sizes} examples; accepted: arrays [N, ...] of one N, "
            "or a function of the epoch"
        )
    ((num_examples,),) = sizes
    if batch_size > num_examples or steps_per_epoch is not None:
        raise InputError(
            f"batch_size={batch_size}, steps_per_epoch={steps_per_epoch} for arrays of "
            f"{num_examples} examples; accepted: batch_size from 1 to {num_examples} "
            "alone"
        )
    return num_examples


def _loop_step(step: Step, key: jax.Array) -> Callable[..., Any]:
    """Returns the step as `loop.fit` calls it; checks its results while traced."""

    def loop_step(state, resources, inputs):
        train, args = resources
        batch = inputs
        if train is not None:
            batch = jax.tree.map(lambda x: x[inputs], train)
        step_key = jax.random.fold_in(rng.stream(key, "step"), state.step)
        new, metrics = step(state, batch, step_key, *args)
        shapes = [
            jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
            for tree in (state, new)
        ]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"step returns a state of {shapes[1]}; accepted: {shapes[0]}, as the "
                "state that it receives"
            )
        if "loss" not in metrics:
            raise InputError(
                f"step returns metrics {sorted(metrics)}; accepted: a dict with 'loss'"
            )
        return new._replace(step=state.step + 1), metrics

    return loop_step


def _feed_of_batches(batches: Batches) -> feed.Feed:
    def fed(
        length: feed.TrainingLength, step: int
    ) -> Generator[feed.StepInputs, None, None]:
        size = length.steps_per_epoch
        for epoch in range(step // size, length.num_epochs):
            place = 0
            for place, batch in zip(range(1, size + 1), batches(epoch), strict=False):
                first = epoch * size + place - 1
                if first >= step:
                    one = jax.tree.map(lambda x: jnp.asarray(x)[None], batch)
                    yield feed.StepInputs(jnp.asarray(first, jnp.int32), one)
            if place < size:
                raise InputError(
                    f"data({epoch}) gives {place} batches; accepted: at least "
                    f"steps_per_epoch={size}"
                )

    return fed


def _checked_score(validate: Callable[[Any], Any]) -> Callable[[Any], np.ndarray]:
    def score(variables):
        found = np.asarray(jax.device_get(validate(variables)), np.float64)
        if found.ndim > 1 or np.isnan(found).any():
            raise InputError(
                f"validate returns {found.tolist()}; accepted: a number, or one of "
                "each member [M], higher is better"
            )
        sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(variables)}
        if found.size > 1 and sizes != {found.shape}:
            raise InputError(
                f"validate returns {len(found)} numbers for variables whose arrays are "
                "not all of so many members [M, ...]; accepted: a number, such as the "
                "mean"
            )
        return found

    return score


def _digest(tree: Any) -> str:
    """Returns the SHA-256 of the arrays of a tree, with their paths and types."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(jax.device_get(leaf))
        what = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(what.encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()
