"""The training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step on what a
feed gives.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from edp.runtime import best_epoch, feed, metrics_log, multihost, storage, xla
from edp.runtime.checkpoint import Checkpoints
from edp.runtime.metrics_log import Progress
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


class NonFinite(ArithmeticError):
    """The loss or the gradients became infinite or not a number."""


def all_finite(tree: Any) -> jax.Array:
    """Whether all floats of a tree of arrays are finite, a bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(x).all() for x in leaves]).all()


def skipping(step_fn: Step) -> Step:
    """The step that leaves the state as it is where it, or a metric, is not finite.

    Gradients that are not finite show in the state that they make. The step is counted
    all the same, so that it is not tried again.

    Args:
      step_fn: (state, ...) -> (state, metrics).

    Returns:
      The same with a metric more, `skipped`, 1 or 0; where it is 1 the others are 0.
    """

    def step(state: TrainState, *args):
        new, metrics = step_fn(state, *args)
        finite = all_finite((new, metrics))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
        skipped = 1 - finite.astype(jnp.float32)
        return kept._replace(step=new.step), {**metrics, "skipped": skipped}

    return step


class Interrupted(Exception):
    """Training stopped on request, its state saved."""


def fit(
    step_fn: Step,
    state: TrainState,
    resources: Any,
    feed: feed.Feed,
    schedule: feed.Schedule,
    stage: Stage,
    *,
    label: str,
    should_stop: Callable[[], bool] = lambda: False,
    select: best_epoch.Selection | None = None,
    skip_nonfinite: bool = False,
    track: Callable[[dict[str, Any]], None] = lambda row: None,
) -> tuple[Any, dict[str, Any]]:
    """Trains to the end, going on from the stage's newest checkpoint if it has one.

    Args:
      step_fn: (state, resources, inputs) -> (state, metrics), each metric a number
        or the members' [M], of which the mean is told. Pure; jitted here,
        once, with the state's memory reused. It derives its randomness from
        `state.step`.
      state: the initial state; its arrays stay on the devices where they are.
      resources: a tree of arrays that every step reads, such as the data.
      feed: gives each step's `inputs`.
      schedule: see `Schedule`.
      stage: where checkpoints and `metrics.jsonl` go.
      label: what to call this in the progress shown.
      should_stop: asked before every dispatch; True saves and raises `Interrupted`.
      select: what is asked after every epoch which variables to keep, beside those
        that are trained. None: those of the last.
      skip_nonfinite: leave out batches whose loss or gradients are not finite.
      track: given every row of `metrics.jsonl` when it is written.

    Returns:
      The variables kept, and what is to be recorded of them: `train_seconds`,
      compilation, scores and earlier, interrupted runs included; of these,
      `checkpoint_seconds` waiting for checkpoints; `skipped_steps`, if there were any;
      with `select`, what it tells, as the `selected_epoch`, from 1, of each of M if it
      keeps as many.

    Raises:
      Interrupted: if `should_stop` said so.
      finite.NonFinite: at the end of an epoch, or when a checkpoint was due, if a loss
        or gradient was not finite, or all of an epoch's were skipped. What was saved
        before is kept.
      checkpoint.SaveFailed: if a checkpoint cannot be written.
      InputError: if the newest checkpoint is of another state than this.
    """
    # A state that came back placed otherwise would have the step compiled again.
    placed = jax.tree.map(lambda x: x.sharding, state)
    state = jax.device_put(state, placed)
    run_steps = _jit_steps(skipping(step_fn) if skip_nonfinite else step_fn, placed)
    is_finite = jax.jit(all_finite, out_shardings=_read_by_all(placed))
    stage.begin()
    per_epoch = schedule.steps_per_epoch
    total = schedule.num_steps
    with Checkpoints(stage.checkpoints) as checkpoints:
        before = {"seconds": 0.0, "checkpoint_seconds": 0.0, "skipped_steps": 0}
        epoch_metrics = []
        best = None if select is None else select.begin(state.variables)
        restored = checkpoints.restore_latest(_saved(state, best))
        if restored is not None:
            state, record = restored
            if best is not None:
                state, variables = state
                best = best_epoch.restore(variables, record["best"])
            before |= {key: record[key] for key in before if key in record}
            epoch_metrics = [
                {name: [value] for name, value in metrics.items()}
                for metrics in record["epoch_metrics"]
            ]
        step = int(state.step)
        skipped = before["skipped_steps"]
        metrics_log.truncate(stage.log, step)
        started = time.monotonic()
        saves = _Saves(schedule, step)

        def told():
            passed = time.monotonic() - started
            waited = checkpoints.blocked_seconds
            return {
                "seconds": before["seconds"] + passed,
                "checkpoint_seconds": before["checkpoint_seconds"] + waited,
                "skipped_steps": skipped,
            }

        def check():
            """Gives the rows of the epoch's steps so far, if all is as it should be."""
            rows = metrics_log.read(epoch_metrics)
            at, what = step, None
            bad = [i for i, row in enumerate(rows) if not math.isfinite(row["loss"])]
            if bad:
                at += 1 + bad[0] - len(rows)
                what = f"the loss is {rows[bad[0]]['loss']}"
            elif not is_finite(state):
                what = "the gradients are not finite"
            elif len(rows) == per_epoch and not metrics_log.taken(rows):
                what = "no loss and gradient is finite"
            if what is None:
                return rows
            checkpoints.finish()
            kept = checkpoints.newest()
            last = "none was made yet" if kept is None else f"the last, of step {kept}"
            raise NonFinite(
                f"{label}: {what} in epoch {1 + (at - 1) // per_epoch}, at step {at} "
                f"of {total}; earlier checkpoints are kept in {stage.checkpoints} "
                f"({last})"
            )

        def save(rows):
            record = {**told(), "epoch_metrics": rows}
            if best is not None:
                record["best"] = best.record
            checkpoints.save(step, _saved(state, best), record)
            saves.made(step)

        last_inputs = None
        with (
            Progress(
                label,
                num_epochs=schedule.num_epochs,
                num_steps=total,
                images_per_step=schedule.images_per_step,
                step=step,
            ) as progress,
            contextlib.closing(feed(schedule, step)) as fed,
        ):
            dispatches = schedule.dispatches(step)
            for (_, size), inputs in zip(dispatches, fed, strict=True):
                if should_stop():
                    save(check())
                    raise Interrupted(f"{label}: saved at step {step} of {total}")
                if inputs is not last_inputs and len(epoch_metrics) > 1:
                    # Or a fast feed would fill the device with batches to come.
                    jax.block_until_ready(epoch_metrics[-2])
                last_inputs = inputs
                state, metrics = run_steps(state, resources, inputs, size)
                epoch_metrics.append(metrics)
                step += size
                progress.steps(size, metrics)
                checkpoints.poll()
                if step % per_epoch == 0:
                    means = metrics_log.means(check())
                    skipped += means.get("skipped_steps", 0)
                    epoch_metrics = []
                    epoch = step // per_epoch
                    if best is not None:
                        best, chosen = select.update(best, state.variables, epoch)
                        means |= chosen
                    row = {"epoch": epoch, "step": step, **means}
                    storage.append_line(stage.log, json.dumps(row))
                    track(row)
                    progress.epoch(epoch, means)
                    if saves.due_after_epoch(step):
                        save([])
                elif saves.due(step):
                    save(check())
            save([])
            checkpoints.finish()
        record = told()
        record = {"train_seconds": record.pop("seconds"), **record}
        if not skipped:
            del record["skipped_steps"]
        if best is None:
            return state.variables, record
        return best.variables, {**record, **select.told(best)}


class _Saves:
    """When checkpoints are due; of several processes, to all at the same step."""

    def __init__(self, schedule: feed.Schedule, step: int):
        self._schedule = schedule
        # Asked rarely, as an exchange waits for the steps before it.
        self._late_for_any = multihost.stop_together(self._is_late)
        self.made(step)

    def made(self, step: int) -> None:
        """One is made now, after this step, or training begins with it."""
        self._step, self._time = step, time.monotonic()

    def due_after_epoch(self, step: int) -> bool:
        late = multihost.from_first(self._is_late())
        return self._has_steps(step) or late

    def due(self, step: int) -> bool:
        late = self._schedule.checkpoint_minutes > 0 and self._late_for_any()
        return self._has_steps(step) or late

    def _is_late(self) -> bool:
        return time.monotonic() - self._time > 60 * self._schedule.checkpoint_minutes

    def _has_steps(self, step: int) -> bool:
        every = self._schedule.checkpoint_steps
        return every is not None and step // every > self._step // every


def _saved(state: TrainState, best: best_epoch.Best | None) -> Any:
    return state if best is None else (state, best.variables)


def _jit_steps(step_fn: Callable, placed: TrainState) -> Callable:
    """(state, resources, inputs, n) -> the state n steps on, and metrics [n, ...].

    `placed` says where the state's arrays lie, before and after every step.
    """

    def step(state, resources, inputs, num_steps):
        def one(state, _):
            place = state.step - inputs.first
            own = jax.tree.map(lambda x: x[place], inputs.steps)
            state, metrics = step_fn(state, resources, own)
            return jax.lax.with_sharding_constraint(state, placed), metrics

        if num_steps == 1:  # no loop around it, in which CPUs are slower
            state, metrics = one(state, None)
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(one, state, length=num_steps)

    return jax.jit(
        step,
        static_argnums=3,
        donate_argnums=0,
        out_shardings=(placed, _read_by_all(placed)),
        compiler_options=xla.compiler_options(),
    )


def _read_by_all(placed: TrainState) -> jax.sharding.Sharding | None:
    """Where what each of several processes reads lies: whole, as the count of steps."""
    return placed.step if jax.process_count() > 1 else None
