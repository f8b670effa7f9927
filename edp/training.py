"""The training loop of every stage: steps, checkpoints, log and progress.

The loop knows nothing of teachers or students; it runs a jitted step.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from edp import processes, workdir
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
    """

    num_epochs: int
    steps_per_epoch: int
    images_per_step: int
    checkpoint_minutes: float


def fit(
    step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    state: TrainState,
    resources: Any,
    epoch_order: Callable[[jax.Array], jax.Array],
    schedule: Schedule,
    stage: workdir.Stage,
    *,
    label: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, float]:
    """Trains to the end, going on from the stage's newest checkpoint if it has one.

    Args:
      step_fn: (state, resources, order) -> (state, metrics), each metric a number
        or the members' [M], of which the mean is told. Pure; jitted here,
        once, with the state's memory reused. It finds its place in `order` from
        `state.step` and derives its randomness from it too.
      state: the initial state; its arrays stay on the devices where they are.
      resources: a tree of arrays that every step reads, such as the data.
      epoch_order: epoch (from 0) -> the order of the examples in it; jittable.
      schedule: see `Schedule`.
      stage: where checkpoints and `metrics.jsonl` go.
      label: what to call this in the progress shown.
      should_stop: asked before every step; True saves and raises `Interrupted`.

    Returns:
      The final state and the seconds spent training, compilation and earlier,
      interrupted runs included.

    Raises:
      Interrupted: if `should_stop` said so.
      NonFiniteLoss: at the end of an epoch in which the loss was not finite.
    """
    # A state that came back placed otherwise would have the step compiled again.
    placed = jax.tree.map(lambda x: x.sharding, state)
    state = jax.device_put(state, placed)
    # Metrics like the count of steps: whole in every process.
    shardings = (placed, placed.step)
    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=shardings)
    epoch_order = jax.jit(epoch_order)
    stage.begin()
    per_epoch = schedule.steps_per_epoch
    total = schedule.num_epochs * per_epoch
    with Checkpoints(stage.checkpoints) as checkpoints:
        seconds_before, epoch_metrics = 0.0, []
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            state, record = restored
            seconds_before = record["seconds"]
            epoch_metrics = record["epoch_metrics"]
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
            checkpoints.save(step, state, record)
            saved = time.monotonic()

        order = None
        with _Progress(label, schedule, step) as progress:
            while step < total:
                if should_stop():
                    save()
                    raise Interrupted(f"{label}: saved at step {step} of {total}")
                if order is None or step % per_epoch == 0:
                    order = epoch_order(np.int32(step // per_epoch))
                state, metrics = step_fn(state, resources, order)
                epoch_metrics.append(metrics)
                step += 1
                progress.step(metrics)
                if step % per_epoch == 0:
                    means = _means(epoch_metrics)
                    epoch_metrics = []
                    epoch = step // per_epoch
                    if not math.isfinite(means["loss"]):
                        raise NonFiniteLoss(
                            f"{label}: the loss is {means['loss']} in epoch {epoch}; "
                            f"earlier checkpoints are kept in {stage.checkpoints}"
                        )
                    row = {"epoch": epoch, "step": step, **means}
                    workdir.append_line(stage.log, json.dumps(row))
                    progress.epoch(epoch, means)
                    due = time.monotonic() - saved > 60 * schedule.checkpoint_minutes
                    if processes.from_first(due):
                        save()
            save()
        return state, seconds()


def _to_floats(steps: list[dict[str, Any]]) -> list[dict[str, float]]:
    """One transfer for all of them."""
    return [{k: float(np.mean(v)) for k, v in m.items()} for m in jax.device_get(steps)]


def _means(steps: list[dict[str, Any]]) -> dict[str, float]:
    steps = _to_floats(steps)
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
            total=schedule.num_epochs * schedule.steps_per_epoch * per_step,
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

    def step(self, metrics: dict[str, jax.Array]) -> None:
        self._epoch_steps += 1
        self._bar.update(self._schedule.images_per_step)
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
