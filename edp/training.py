"""The training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step on what a
feed gives.
"""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from edp import cpu, processes, selection, workdir
from edp.checkpoint import Checkpoints
from edp.train_state import TrainState

# How often a terminal's bar shows a new loss; reading it waits for the device.
_REFRESH_SECONDS = 1.0


class Interrupted(Exception):
    """Training stopped on request, its state saved."""


class NonFiniteLoss(ArithmeticError):
    """The loss became infinite or not a number."""


class Schedule(NamedTuple):
    """How long to train and how often to save.

    Attributes:
      num_epochs: passes over the data.
      steps_per_epoch: optimizer steps in one.
      images_per_step: training images that one step reads, for the speed shown.
      checkpoint_minutes: at most this long between two checkpoints, which are
        written at the end of an epoch.
      steps_per_dispatch: steps that the device does as one program, where a step
        is shorter than what it takes to start one. Changes no result.
    """

    num_epochs: int
    steps_per_epoch: int
    images_per_step: int
    checkpoint_minutes: float
    steps_per_dispatch: int = 1

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
    step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    state: TrainState,
    resources: Any,
    feed: Feed,
    schedule: Schedule,
    stage: workdir.Stage,
    *,
    label: str,
    should_stop: Callable[[], bool] = lambda: False,
    select: selection.Selection | None = None,
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
      track: given every row of `metrics.jsonl` when it is written.

    Returns:
      The variables kept, and what is to be recorded of them: `train_seconds`,
      compilation, scores and earlier, interrupted runs included; with `select`, what
      it tells, as the `selected_epoch`, from 1, of each of M if it keeps as many.

    Raises:
      Interrupted: if `should_stop` said so.
      NonFiniteLoss: at the end of an epoch in which the loss was not finite.
    """
    # A state that came back placed otherwise would have the step compiled again.
    placed = jax.tree.map(lambda x: x.sharding, state)
    state = jax.device_put(state, placed)
    run_steps = _jit_steps(step_fn, placed)
    stage.begin()
    per_epoch = schedule.steps_per_epoch
    total = schedule.num_steps
    with Checkpoints(stage.checkpoints) as checkpoints:
        seconds_before, epoch_metrics = 0.0, []
        best = None if select is None else select.begin(state.variables)
        restored = checkpoints.restore_latest(_saved(state, best))
        if restored is not None:
            state, record = restored
            if best is not None:
                state, variables = state
                best = selection.restore(variables, record["best"])
            seconds_before = record["seconds"]
            epoch_metrics = [
                {name: [value] for name, value in metrics.items()}
                for metrics in record["epoch_metrics"]
            ]
        step = int(state.step)
        _truncate_log(stage.log, step)
        started = saved = time.monotonic()

        def seconds():
            return seconds_before + time.monotonic() - started

        def save():
            nonlocal saved
            record = {
                "seconds": seconds(),
                "epoch_metrics": _to_floats(epoch_metrics),
            }
            if best is not None:
                record["best"] = best.record
            checkpoints.save(step, _saved(state, best), record)
            saved = time.monotonic()

        last_inputs = None
        with (
            _Progress(label, schedule, step) as progress,
            contextlib.closing(feed(schedule, step)) as fed,
        ):
            dispatches = schedule.dispatches(step)
            for (_, size), inputs in zip(dispatches, fed, strict=True):
                if should_stop():
                    save()
                    raise Interrupted(f"{label}: saved at step {step} of {total}")
                if inputs is not last_inputs and len(epoch_metrics) > 1:
                    # Or a fast feed would fill the device with batches to come.
                    jax.block_until_ready(epoch_metrics[-2])
                last_inputs = inputs
                state, metrics = run_steps(state, resources, inputs, size)
                epoch_metrics.append(metrics)
                step += size
                progress.steps(size, metrics)
                if step % per_epoch == 0:
                    means = _means(epoch_metrics)
                    epoch_metrics = []
                    epoch = step // per_epoch
                    if not math.isfinite(means["loss"]):
                        raise NonFiniteLoss(
                            f"{label}: the loss is {means['loss']} in epoch {epoch}; "
                            f"earlier checkpoints are kept in {stage.checkpoints}"
                        )
                    if best is not None:
                        best, told = select.update(best, state.variables, epoch)
                        means |= told
                    row = {"epoch": epoch, "step": step, **means}
                    workdir.append_line(stage.log, json.dumps(row))
                    track(row)
                    progress.epoch(epoch, means)
                    due = time.monotonic() - saved > 60 * schedule.checkpoint_minutes
                    if processes.from_first(due):
                        save()
            save()
        if best is None:
            return state.variables, {"train_seconds": seconds()}
        return best.variables, {"train_seconds": seconds(), **select.told(best)}


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

    # Of several processes each reads the metrics: whole, like the count of steps.
    metrics_placed = placed.step if jax.process_count() > 1 else None
    return jax.jit(
        step,
        static_argnums=3,
        donate_argnums=0,
        out_shardings=(placed, metrics_placed),
        compiler_options=cpu.compiler_options(),
    )


def _to_floats(dispatches: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Each step's metrics; one transfer for all of them."""
    return [
        {name: float(np.mean(values[i])) for name, values in metrics.items()}
        for metrics in jax.device_get(dispatches)
        for i in range(len(metrics["loss"]))
    ]


def _means(dispatches: list[dict[str, Any]]) -> dict[str, float]:
    steps = _to_floats(dispatches)
    return {name: float(np.mean([m[name] for m in steps])) for name in steps[0]}


def _truncate_log(path: pathlib.Path, step: int) -> None:
    """Drops what was logged after the checkpoint that training goes on from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step:
                break
        except ValueError:  # a line cut off when the process was killed
            break
        kept.append(line)
    workdir.write_text(path, "".join(kept))


class _Progress:
    """A bar on a terminal, a line per epoch elsewhere; of several processes one's."""

    def __init__(self, label: str, schedule: Schedule, step: int):
        self._label, self._schedule = label, schedule
        self._shown = processes.is_first()
        self._interactive = self._shown and sys.stderr.isatty()
        per_step = schedule.images_per_step
        self._bar = tqdm.tqdm(
            desc=label,
            total=schedule.num_steps * per_step,
            initial=step * per_step,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._interactive,
        )
        self._epoch_started = self._refreshed = time.monotonic()
        self._epoch_steps = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()

    def steps(self, size: int, metrics: dict[str, jax.Array]) -> None:
        self._epoch_steps += size
        self._bar.update(size * self._schedule.images_per_step)
        now = time.monotonic()
        if self._interactive and now - self._refreshed > _REFRESH_SECONDS:
            self._bar.set_postfix(loss=f"{np.mean(metrics['loss']):.4f}")
            self._refreshed = now

    def epoch(self, epoch: int, means: dict[str, float]) -> None:
        now = time.monotonic()
        images = self._epoch_steps * self._schedule.images_per_step
        speed = images / max(now - self._epoch_started, 1e-9)
        self._epoch_started, self._epoch_steps = now, 0
        if self._shown and not self._interactive:
            values = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            print(
                f"{self._label}  epoch {epoch}/{self._schedule.num_epochs}  {values}"
                f"  {speed:,.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
