"""Training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step on the inputs of
a feed.
"""

import contextlib
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from edp.runtime import best_epoch, feed, metrics_log, multihost, steps, storage
from edp.runtime.checkpoint import Checkpoints
from edp.runtime.metrics_log import Progress, Row
from edp.runtime.no_checkpoints import NoCheckpoints
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState


class NonFinite(ArithmeticError):
    """The loss or the gradients became infinite or NaN."""


class Interrupted(Exception):
    """Training stopped on request, its state saved."""


class Trained(NamedTuple):
    """Result of `fit`.

    Attributes:
      variables: the variables kept.
      record: `train_seconds`, which includes compilation, scoring and earlier,
        interrupted runs; `checkpoint_seconds`, the part of these spent waiting for
        checkpoints; `skipped_steps`, if there were any; with `select`, its summary,
        such as the `selected_epoch`, from 1, of each of M if it keeps M.
      state: the state after the last step.
    """

    variables: Any
    record: dict[str, Any]
    state: TrainState


@dataclasses.dataclass
class LoopState:
    """State of the loop between two dispatches.

    Attributes:
      step: optimizer steps done; `train.step`, on the host.
      train: the training state, on the devices.
      best: the best variables so far; None without a selection.
      epoch_metrics: the metrics of each dispatch of this epoch, on the devices, each
        [n] or [n, M] for n steps.
      skipped_steps: non-finite updates skipped in the epochs before.
    """

    step: int
    train: TrainState
    best: best_epoch.Best | None
    epoch_metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    skipped_steps: int = 0


def fit(
    step_fn: steps.Step,
    state: TrainState,
    resources: Any,
    feed: feed.Feed,
    schedule: feed.TrainingLength,
    stage: Stage | None,
    *,
    label: str,
    should_stop: Callable[[], bool] = lambda: False,
    select: best_epoch.Selection | None = None,
    skip_nonfinite: bool = False,
    track: Callable[[dict[str, Any]], None] = lambda row: None,
    run_steps: Callable[..., Any] | None = None,
    after_first: Callable[[], None] = lambda: None,
    runs_briefly: bool = False,
) -> Trained:
    """Trains to the end, resuming from the stage's newest checkpoint if there is one.

    Args:
      step_fn: (state, resources, inputs) -> (state, metrics), each metric a scalar or
        the members' [M], whose mean is logged. Pure; jitted here, once, with the
        state's buffers donated. It derives its randomness from `state.step`.
      state: the initial state; its arrays keep their shardings.
      resources: a tree of arrays that every step reads, such as the data.
      feed: yields each step's `inputs`.
      schedule: number of steps, and when to save.
      stage: directory of the checkpoints and of `metrics.jsonl`; None: nothing is
        written.
      label: name shown in the progress.
      should_stop: called before every dispatch; True saves and raises `Interrupted`.
      select: selects, after every epoch, the variables to keep beside the trained
        ones. None: those of the last epoch.
      skip_nonfinite: skip updates whose loss or gradients are not finite.
      track: called with every row of `metrics.jsonl` when it is written.
      run_steps: `step_fn` compiled by `steps.compile_steps`, with `skip_nonfinite`
        applied. None: jitted here.
      after_first: called once, after the first dispatch of this call, whose program
        is compiled by then.
      runs_briefly: see `xla.compiler_options`; of what is jitted here.

    Returns:
      The variables kept, a record of their training, and the last state.

    Raises:
      Interrupted: if `should_stop` returned True.
      NonFinite: at the end of an epoch, or when a checkpoint was due, if a loss or
        gradient was not finite, or all updates of an epoch were skipped. Earlier
        checkpoints are kept.
      checkpoint.SaveFailed: if a checkpoint cannot be written.
      InputError: if the newest checkpoint has another structure than `state`.
    """
    # A restored state with another sharding would recompile the step.
    placed = jax.tree.map(lambda x: x.sharding, state)
    state = jax.device_put(state, placed)
    if skip_nonfinite:
        step_fn = steps.skip_nonfinite_updates(step_fn)
    if run_steps is None:
        run_steps = steps.jit_steps(step_fn, placed, runs_briefly=runs_briefly)
    is_finite = steps.jit_all_finite(placed, runs_briefly=runs_briefly)
    per_epoch, total = schedule.steps_per_epoch, schedule.num_steps
    if stage is not None:
        stage.begin()
    with _open(stage) as checkpoints:
        loop, record = _restore(checkpoints, state, select)
        del state  # `loop` has it, or a checkpoint's: frees the memory of the other
        if stage is not None:
            metrics_log.truncate(stage.log, loop.step)
        saver = _Saver(checkpoints, schedule, loop.step, record)
        check = functools.partial(
            _check, loop, is_finite, schedule, checkpoints, stage, label
        )
        previous = None
        with (
            Progress(
                label,
                num_epochs=schedule.num_epochs,
                num_steps=total,
                images_per_step=schedule.images_per_step,
                step=loop.step,
            ) as progress,
            contextlib.closing(feed(schedule, loop.step)) as fed,
        ):
            dispatches = schedule.dispatches(loop.step)
            for (_, size), inputs in zip(dispatches, fed, strict=True):
                if should_stop():
                    saver.save(loop, check())
                    done = "stopped" if stage is None else "saved"
                    raise Interrupted(f"{label}: {done} at step {loop.step} of {total}")
                if inputs is not previous and len(loop.epoch_metrics) > 1:
                    # Bounds the batches that a fast feed puts on the device.
                    jax.block_until_ready(loop.epoch_metrics[-2])
                is_first, previous = previous is None, inputs

                loop.train, metrics = run_steps(loop.train, resources, inputs, size)
                loop.step += size
                loop.epoch_metrics.append(metrics)
                progress.steps(size, metrics)
                checkpoints.poll()
                if is_first:
                    after_first()

                if loop.step % per_epoch == 0:
                    row = _end_epoch(loop, check(), per_epoch, select)
                    if stage is not None:
                        storage.append_line(stage.log, json.dumps(row))
                    track(row)
                    progress.epoch(row)
                    if saver.is_due_after_epoch(loop.step):
                        saver.save(loop, [])
                elif saver.is_due(loop.step):
                    saver.save(loop, check())
            saver.save(loop, [])
            checkpoints.finish()
        return _result(loop, saver.times(), select)


def _open(stage: Stage | None) -> Checkpoints | NoCheckpoints:
    return NoCheckpoints() if stage is None else Checkpoints(stage.checkpoints)


def _restore(
    checkpoints: Checkpoints | NoCheckpoints,
    state: TrainState,
    select: best_epoch.Selection | None,
) -> tuple[LoopState, dict[str, Any]]:
    """Returns the loop's state in the newest checkpoint, and its record.

    Without a checkpoint these are the initial state and an empty record.
    """
    best = None if select is None else select.begin(state.kept_variables)
    restored = checkpoints.restore_latest(_saved(state, best))
    if restored is None:
        return LoopState(int(state.step), state, best), {}
    state, record = restored
    if best is not None:
        state, variables = state
        best = best_epoch.restore(variables, record["best"])
    epoch_metrics = [
        {name: [value] for name, value in row.items()}
        for row in record["epoch_metrics"]
    ]
    skipped = record.get("skipped_steps", 0)
    return LoopState(int(state.step), state, best, epoch_metrics, skipped), record


def _check(
    loop: LoopState,
    is_finite: Callable[[TrainState], jax.Array],
    schedule: feed.TrainingLength,
    checkpoints: Checkpoints | NoCheckpoints,
    stage: Stage | None,
    label: str,
) -> list[Row]:
    """Reads the metrics of the epoch so far, a row for each step.

    Raises:
      NonFinite: if a loss or the state is not finite, or all updates of the epoch were
        skipped.
    """
    per_epoch = schedule.steps_per_epoch
    rows = metrics_log.read(loop.epoch_metrics)
    step, problem = loop.step, None
    bad = [i for i, row in enumerate(rows) if not math.isfinite(row["loss"])]
    if bad:
        step += 1 + bad[0] - len(rows)
        problem = f"the loss is {rows[bad[0]]['loss']}"
    elif not is_finite(loop.train):
        problem = "the gradients are not finite"
    elif len(rows) == per_epoch and not metrics_log.taken(rows):
        problem = "no loss and gradient is finite"
    if problem is None:
        return rows
    checkpoints.finish()
    newest = checkpoints.newest()
    last = "none was made yet" if newest is None else f"the last, of step {newest}"
    kept = (
        ""
        if stage is None
        else (f"; earlier checkpoints are kept in {stage.checkpoints} ({last})")
    )
    raise NonFinite(
        f"{label}: {problem} in epoch {1 + (step - 1) // per_epoch}, at step {step} "
        f"of {schedule.num_steps}{kept}"
    )


def _end_epoch(
    loop: LoopState,
    rows: list[Row],
    per_epoch: int,
    select: best_epoch.Selection | None,
) -> dict[str, Any]:
    """Updates the best variables and begins the next epoch; returns the log's row."""
    epoch = loop.step // per_epoch
    means = metrics_log.means(rows)
    loop.skipped_steps += means.get("skipped_steps", 0)
    loop.epoch_metrics = []
    if select is not None:
        loop.best, scores = select.update(loop.best, loop.train.kept_variables, epoch)
        means |= scores
    return {"epoch": epoch, "step": loop.step, **means}


def _result(
    loop: LoopState, times: dict[str, float], select: best_epoch.Selection | None
) -> Trained:
    record: dict[str, Any] = {"train_seconds": times.pop("seconds"), **times}
    if loop.skipped_steps:
        record["skipped_steps"] = loop.skipped_steps
    if select is None:
        return Trained(loop.train.kept_variables, record, loop.train)
    record |= select.summary(loop.best)
    return Trained(loop.best.variables, record, loop.train)


class _Saver:
    """Saves the loop's state, and decides when; all processes at the same step."""

    def __init__(
        self,
        checkpoints: Checkpoints | NoCheckpoints,
        schedule: feed.TrainingLength,
        step: int,
        record: dict[str, Any],
    ):
        """Begins at `step`, after the time in the record of the checkpoint restored."""
        self._checkpoints, self._schedule = checkpoints, schedule
        self._seconds_before = record.get("seconds", 0.0)
        self._blocked_before = record.get("checkpoint_seconds", 0.0)
        # Called rarely, as an exchange waits for the steps before it.
        self._late_for_any = multihost.stop_together(self._is_late)
        self._last_step = step
        self._last_time = self._started = time.monotonic()

    def save(self, loop: LoopState, rows: list[Row]) -> None:
        """Saves a checkpoint, with the metrics of the unfinished epoch's steps."""
        record = {
            **self.times(),
            "skipped_steps": loop.skipped_steps,
            "epoch_metrics": rows,
        }
        if loop.best is not None:
            record["best"] = loop.best.record
        self._checkpoints.save(loop.step, _saved(loop.train, loop.best), record)
        self._last_step, self._last_time = loop.step, time.monotonic()

    def times(self) -> dict[str, float]:
        """Returns seconds of training, and of these waiting for checkpoints."""
        passed = time.monotonic() - self._started
        blocked = self._checkpoints.blocked_seconds
        return {
            "seconds": self._seconds_before + passed,
            "checkpoint_seconds": self._blocked_before + blocked,
        }

    def is_due_after_epoch(self, step: int) -> bool:
        late = multihost.from_first(self._is_late())
        return self._has_steps(step) or late

    def is_due(self, step: int) -> bool:
        late = self._schedule.checkpoint_minutes > 0 and self._late_for_any()
        return self._has_steps(step) or late

    def _is_late(self) -> bool:
        passed = time.monotonic() - self._last_time
        return passed > 60 * self._schedule.checkpoint_minutes

    def _has_steps(self, step: int) -> bool:
        every = self._schedule.checkpoint_steps
        return every is not None and step // every > self._last_step // every


def _saved(state: TrainState, best: best_epoch.Best | None) -> Any:
    """Returns the tree of arrays in a checkpoint."""
    return state if best is None else (state, best.variables)
