"""Training loop on a step that can be followed by hand."""

import itertools
import json

import jax
import jax.numpy as jnp

from edp.runtime import loop, steps
from edp.runtime.feed import StepInputs, TrainingLength, resident_feed
from edp.runtime.stage import Stage
from edp.runtime.state import TrainState

SCHEDULE = TrainingLength(
    num_epochs=3, steps_per_epoch=2, images_per_step=5, checkpoint_minutes=0.0
)
# Epoch e visits x = 10 e + 1, then 10 e + 2; w becomes 3 w + x.
VISITED = [1, 2, 11, 12, 21, 22]
TRAINED = sum(x * 3 ** (5 - i) for i, x in enumerate(VISITED))
LOG = [
    {"epoch": 1, "step": 2, "loss": 1.5},
    {"epoch": 2, "step": 4, "loss": 11.5},
    {"epoch": 3, "step": 6, "loss": 21.5},
]


def epoch_order(epoch):
    return 10 * epoch + jnp.arange(1, 3)


RESIDENT = resident_feed(epoch_order)


def streamed_feed(schedule, step):
    """Yields the same inputs, one dispatch at a time."""
    for first, size in schedule.dispatches(step):
        visited = jnp.array(VISITED[first : first + size])
        yield StepInputs(jnp.int32(first), visited)


def fit(
    path,
    should_stop=lambda: False,
    schedule=SCHEDULE,
    failing_step=None,
    failing_gradient=None,
    feed=RESIDENT,
    skip=False,
    records=None,
    ema_decay=None,
    ahead=None,
):
    """Trains; returns w, the seconds and how often the step was traced."""
    traces = []

    def step(state, scale, seen):
        traces.append(1)
        w = 3 * state.params["w"] + seen * scale
        # Of two members, whose mean is logged.
        loss = jnp.stack([seen - 1.0, seen + 1.0])
        if failing_step is not None:
            loss = jnp.where(state.step == failing_step, jnp.nan, loss)
        v = jnp.where(state.step == failing_gradient, jnp.inf, state.params["v"])
        state = TrainState(state.step + 1, {"w": w, "v": v}, {}, state.opt_state)
        return state, {"loss": loss}

    if failing_gradient is None:
        failing_gradient = -1
    params = {"w": jnp.int32(0), "v": jnp.float32(0)}
    state = TrainState(jnp.int32(0), params, {}, ())
    if ema_decay is not None:
        state = state._replace(params=jax.tree.map(jnp.float32, params))
        state = steps.begin_average(state)
        step = steps.average_variables(step, ema_decay)
    stage = Stage(path, {"a": 1})
    own = {}
    if ahead is not None:  # compiled from shapes
        _, size = next(schedule.dispatches(0))
        arguments = state, jnp.int32(1), next(feed(schedule, 0))
        own["run_steps"] = steps.compile_steps(
            step, *jax.eval_shape(lambda: arguments), size
        )
        own["after_first"] = lambda: ahead.append(len(traces))
    variables, record, _ = loop.fit(
        step,
        state,
        jnp.int32(1),
        feed,
        schedule,
        stage,
        label="this",
        should_stop=should_stop,
        skip_nonfinite=skip,
        **own,
    )
    if records is not None:
        records.append(record)
    w = variables["params"]["w"]
    w = int(w) if ema_decay is None else float(w)
    return w, record["train_seconds"], len(traces)


def saved_steps(path):
    """Returns the steps of the checkpoints that are kept."""
    return sorted(int(path.name) for path in (path / "checkpoints").iterdir())


def stop_after(steps):
    """Returns a `should_stop` that allows so many steps."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def read_log(path):
    """Returns the rows of the metrics log."""
    return [json.loads(line) for line in (path / "metrics.jsonl").open()]


class Crash(Exception):
    """Ends a training as a crash would, without a checkpoint."""


def crash_after(steps):
    """Returns a `should_stop` that raises `Crash` after so many steps."""
    asked = itertools.count()

    def should_stop():
        if next(asked) == steps:
            raise Crash
        return False

    return should_stop
