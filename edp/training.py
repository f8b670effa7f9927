"""The training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step on what a
feed gives.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from edp import cpu, finite, processes, selection, step_log, workdir
from edp.checkpoint import Checkpoints
from edp.progress import Progress
from edp.train_state import TrainState


class Interrupted(Exception):
    """Training stopped on request, its state saved."""


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


def fit(
    step_fn: finite.Step,
    state: TrainState,
    resources: Any,
    feed: Feed,
    schedule: Schedule,
    stage: workdir.Stage,
    *,
    label: str,
    should_stop: Callable[[], bool] = lambda: False,
    select: selection.Selection | None = None,
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
    run_steps = _jit_steps(
        finite.skipping(step_fn) if skip_nonfinite else step_fn, placed
    )
    is_finite = jax.jit(finite.all_finite, out_shardings=_read_by_all(placed))
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
                best = selection.restore(variables, record["best"])
            before |= {key: record[key] for key in before if key in record}
            epoch_metrics = [
                {name: [value] for name, value in metrics.items()}
                for metrics in record["epoch_metrics"]
            ]
        step = int(state.step)
        skipped = before["skipped_steps"]
        step_log.truncate(stage.log, step)
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
            rows = step_log.read(epoch_metrics)
            at, what = step, None
            bad = [i for i, row in enumerate(rows) if not math.isfinite(row["loss"])]
            if bad:
                at += 1 + bad[0] - len(rows)
                what = f"the loss is {rows[bad[0]]['loss']}"
            elif not is_finite(state):
                what = "the gradients are not finite"
            elif len(rows) == per_epoch and not step_log.taken(rows):
                what = "no loss and gradient is finite"
            if what is None:
                return rows
            checkpoints.finish()
            kept = checkpoints.newest()
            last = "none was made yet" if kept is None else f"the last, of step {kept}"
            raise finite.NonFinite(
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
                    means = step_log.means(check())
                    skipped += means.get("skipped_steps", 0)
                    epoch_metrics = []
                    epoch = step // per_epoch
                    if best is not None:
                        best, chosen = select.update(best, state.variables, epoch)
                        means |= chosen
                    row = {"epoch": epoch, "step": step, **means}
                    workdir.append_line(stage.log, json.dumps(row))
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

    def __init__(self, schedule: Schedule, step: int):
        self._schedule = schedule
        # Asked rarely, as an exchange waits for the steps before it.
        self._late_for_any = processes.stop_together(self._is_late)
        self.made(step)

    def made(self, step: int) -> None:
        """One is made now, after this step, or training begins with it."""
        self._step, self._time = step, time.monotonic()

    def due_after_epoch(self, step: int) -> bool:
        late = processes.from_first(self._is_late())
        return self._has_steps(step) or late

    def due(self, step: int) -> bool:
        late = self._schedule.checkpoint_minutes > 0 and self._late_for_any()
        return self._has_steps(step) or late

    def _is_late(self) -> bool:
        return time.monotonic() - self._time > 60 * self._schedule.checkpoint_minutes

    def _has_steps(self, step: int) -> bool:
        every = self._schedule.checkpoint_steps
        return every is not None and step // every > self._step // every


def _saved(state: TrainState, best: selection.Best | None) -> Any:
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
        compiler_options=cpu.compiler_options(),
    )


def _read_by_all(placed: TrainState) -> jax.sharding.Sharding | None:
    """Where what each of several processes reads lies: whole, as the count of steps."""
    return placed.step if jax.process_count() > 1 else None
