"""Tests the training loop on a step that can be followed by hand."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    return sorted(int(path.name) for path in (path / "checkpoints").iterdir())


def stop_after(steps):
    """Returns a `should_stop` that allows so many steps."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def read_log(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").open()]


def test_trains_and_logs_each_epoch(tmp_path, capfd):
    w, seconds, num_traces = fit(tmp_path)
    assert (w, num_traces) == (TRAINED, 1)
    assert seconds > 0
    assert read_log(tmp_path) == LOG
    lines = capfd.readouterr().err.splitlines()
    assert [line.split("  ")[:3] for line in lines] == [
        ["this", f"epoch {row['epoch']}/3", f"loss {row['loss']:.4f}"] for row in LOG
    ]
    assert all(line.endswith(" images/s") for line in lines)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("steps_per_dispatch", [1, 2])
@pytest.mark.parametrize("feed", [RESIDENT, streamed_feed])
def test_program_compiled_ahead_is_not_traced_again(tmp_path, feed, steps_per_dispatch):
    schedule = SCHEDULE._replace(steps_per_dispatch=steps_per_dispatch)
    began = []
    w, _, num_traces = fit(tmp_path, schedule=schedule, feed=feed, ahead=began)
    assert (w, num_traces, began) == (TRAINED, 1, [1])
    assert read_log(tmp_path) == LOG


@pytest.mark.parametrize("steps", range(6))
def test_resumes_from_any_step_as_if_never_interrupted(tmp_path, steps):
    with pytest.raises(loop.Interrupted, match=f"this: saved at step {steps} of 6"):
        fit(tmp_path, stop_after(steps))
    assert (tmp_path / "checkpoints" / str(steps)).is_dir()
    w, _, num_traces = fit(tmp_path)
    assert (w, num_traces) == (TRAINED, 1)
    assert read_log(tmp_path) == LOG


def test_frozen_variables_are_their_average_exactly():
    frozen = {"source": jax.random.normal(jax.random.key(0), (1000,))}
    state = steps.begin_average(TrainState(jnp.int32(0), {}, frozen, ()))

    def count(state):
        return state._replace(step=state.step + 1), {}

    step = jax.jit(steps.average_variables(count, 0.9))
    for _ in range(20):
        state, _ = step(state)
    assert (state.kept_variables["source"] == frozen["source"]).all()


def test_the_moving_average_is_kept_and_resumed(tmp_path):
    w = average = 0.0
    for t, x in enumerate(VISITED, 1):
        w = 3 * w + x
        d = min(0.3, t / (t + 9))  # 0.1, 0.18, 0.25, then 0.3
        average = d * average + (1 - d) * w
    whole, *_ = fit(tmp_path / "whole", ema_decay=0.3)
    assert whole == pytest.approx(average, rel=1e-6) and w == TRAINED != average
    parts = tmp_path / "parts"
    with pytest.raises(loop.Interrupted):
        fit(parts, stop_after(3), ema_decay=0.3)
    assert fit(parts, ema_decay=0.3)[0] == whole
    assert read_log(parts) == LOG


def test_resumes_after_every_single_step(tmp_path):
    for _ in range(5):
        with pytest.raises(loop.Interrupted):
            fit(tmp_path, stop_after(1))
    assert fit(tmp_path)[::2] == (TRAINED, 1)
    assert fit(tmp_path)[::2] == (TRAINED, 0)  # nothing is left to do
    assert read_log(tmp_path) == LOG


def test_dispatches_end_with_the_epoch():
    schedule = TrainingLength(2, 5, 1, 0.0, steps_per_dispatch=2)
    whole = [(0, 2), (2, 2), (4, 1), (5, 2), (7, 2), (9, 1)]
    assert list(schedule.dispatches(0)) == whole
    assert list(schedule.dispatches(5)) == whole[3:]
    # From a step inside a dispatch of that schedule.
    assert list(schedule.dispatches(6)) == [(6, 2), (8, 2)]
    assert list(schedule.dispatches(10)) == []
    assert list(schedule._replace(steps_per_dispatch=9).dispatches(0)) == [
        (0, 5),
        (5, 5),
    ]


@pytest.mark.parametrize("feed", ["resident", "streamed"])
@pytest.mark.parametrize(("num_epochs", "num_programs"), [(3, 1), (1, 2)])
def test_several_steps_per_dispatch_change_no_result(
    tmp_path, feed, num_epochs, num_programs
):
    """Dispatches have 2 steps, or in one long epoch 4 and then 2."""
    per_epoch = len(VISITED) // num_epochs
    orders = jnp.array(VISITED).reshape(num_epochs, per_epoch)
    feed = {
        "resident": resident_feed(lambda epoch: orders[epoch]),
        "streamed": streamed_feed,
    }[feed]
    schedule = TrainingLength(num_epochs, per_epoch, 5, 0.0, steps_per_dispatch=4)
    w, _, num_traces = fit(tmp_path / "whole", schedule=schedule, feed=feed)
    assert (w, num_traces) == (TRAINED, num_programs)
    log = read_log(tmp_path / "whole")
    assert [row["step"] for row in log] == [*range(per_epoch, 7, per_epoch)]
    assert [row["loss"] for row in log] == orders.mean(axis=1).tolist()
    # Stops between dispatches: of one step, then of up to four.
    for n, stopped_at in ((1, 1), (4, min(5, per_epoch))):
        shorter = schedule._replace(steps_per_dispatch=n)
        with pytest.raises(loop.Interrupted, match=f"at step {stopped_at} of 6"):
            fit(tmp_path / "parts", stop_after(1), shorter, feed=feed)
    assert fit(tmp_path / "parts", schedule=schedule, feed=feed)[0] == TRAINED
    assert read_log(tmp_path / "parts") == log


def test_a_feed_is_closed_when_training_stops(tmp_path):
    closed = []

    def feed(schedule, step):
        try:
            yield from streamed_feed(schedule, step)
        finally:
            closed.append(step)

    with pytest.raises(loop.Interrupted) as interrupted:
        fit(tmp_path, stop_after(1), feed=feed)
    assert closed == [0] and interrupted.tb is not None
    fit(tmp_path, feed=feed)
    assert closed == [0, 1]


def test_adds_the_time_before_an_interruption(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def an_hour_later():
        now[0] += 3600
        return True

    with pytest.raises(loop.Interrupted):
        fit(tmp_path, an_hour_later)
    assert fit(tmp_path)[1] == 3600


@pytest.mark.parametrize("minutes", [0.0, 1e9])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_resumes_from_the_last_checkpoint_after_a_crash(tmp_path, minutes, steps):
    schedule = SCHEDULE._replace(checkpoint_minutes=minutes)
    asked = itertools.count()

    def crash():
        if next(asked) == steps:
            raise RuntimeError
        return False

    with pytest.raises(RuntimeError):
        fit(tmp_path, crash, schedule)
    expected = [2, 4] if minutes == 0 else []
    assert saved_steps(tmp_path) == [step for step in expected if step <= steps]
    log = tmp_path / "metrics.jsonl"
    with log.open("a") as file:
        file.write('{"epoch": 3, "st')  # cut off by the crash
    assert fit(tmp_path, schedule=schedule)[0] == TRAINED
    assert read_log(tmp_path) == LOG


class Crash(Exception):
    pass


def crash_after(steps):
    asked = itertools.count()

    def should_stop():
        if next(asked) == steps:
            raise Crash
        return False

    return should_stop


@pytest.mark.parametrize(
    ("every", "per_dispatch", "crashes", "saved"),
    [
        (1, 1, 3, [2, 3]),
        (2, 1, 5, [2, 4]),
        (4, 1, 3, []),
        (5, 2, 3, [5]),  # the epoch's third dispatch ends with the epoch's fifth step
        (3, 2, 2, [4]),  # after the dispatch
    ],
)
def test_saves_every_checkpoint_steps(tmp_path, every, per_dispatch, crashes, saved):
    """In one long epoch of six steps, or five, and resumes in its middle."""
    per_epoch = 5 if every == 5 else 6
    order = jnp.array(VISITED)[:per_epoch]
    schedule = TrainingLength(1, per_epoch, 5, 1e9, per_dispatch, every)
    feed = resident_feed(lambda epoch: order)
    if crashes * per_dispatch >= per_epoch:
        fit(tmp_path, schedule=schedule, feed=feed)
    else:
        with pytest.raises(Crash):
            fit(tmp_path, crash_after(crashes), schedule, feed=feed)
    assert saved_steps(tmp_path) == saved
    w = fit(tmp_path, schedule=schedule, feed=feed)[0]
    assert w == sum(x * 3 ** (per_epoch - 1 - i) for i, x in enumerate(order.tolist()))
    (row,) = read_log(tmp_path)
    assert row["loss"] == pytest.approx(float(order.mean()))


def test_saves_within_an_epoch_after_checkpoint_minutes(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    asked = itertools.count()

    def should_stop():
        if next(asked) == 5:
            raise Crash
        now[0] += 40
        return False

    schedule = TrainingLength(1, 6, 5, checkpoint_minutes=1.0)
    feed = resident_feed(lambda epoch: jnp.array(VISITED))
    with pytest.raises(Crash):
        fit(tmp_path, should_stop, schedule, feed=feed)
    assert saved_steps(tmp_path) == [2, 4]  # at 80 s and at 160 s


def test_a_nonfinite_loss_is_raised_and_not_saved(tmp_path):
    words = (
        r"this: the loss is nan in epoch 2, at step 3 of 6; .*\(the last, of step 2\)"
    )
    with pytest.raises(loop.NonFinite, match=words):
        fit(tmp_path, failing_step=2)
    assert read_log(tmp_path) == LOG[:1]
    assert saved_steps(tmp_path) == [2]
    assert fit(tmp_path)[0] == TRAINED
    assert read_log(tmp_path) == LOG


@pytest.mark.parametrize("stop", [False, True])
def test_nonfinite_gradients_are_raised_and_not_saved(tmp_path, stop):
    """While the loss is still finite: at an epoch's end, or before a save."""
    words = "the gradients are not finite in epoch 2, at step "
    step = 2 if stop else 3
    should_stop = stop_after(3) if stop else stop_after(9)
    with pytest.raises(loop.NonFinite, match=words + f"{step + 1} of 6"):
        fit(tmp_path, should_stop, failing_gradient=step)
    assert read_log(tmp_path) == LOG[:1]
    assert saved_steps(tmp_path) == [2]
    assert fit(tmp_path)[0] == TRAINED


@pytest.mark.parametrize("trouble", ["failing_step", "failing_gradient"])
@pytest.mark.parametrize("stopped", [None, 2, 3])
def test_nonfinite_updates_are_skipped(tmp_path, trouble, stopped):
    trouble, records = {trouble: 2}, []
    if stopped:
        with pytest.raises(loop.Interrupted):
            fit(tmp_path, stop_after(stopped), skip=True, **trouble)
    w = fit(tmp_path, skip=True, records=records, **trouble)[0]
    assert w == sum(x * 3 ** (4 - i) for i, x in enumerate([1, 2, 12, 21, 22]))
    log = read_log(tmp_path)
    assert log == [
        LOG[0],
        {"epoch": 2, "step": 4, "loss": 12.0, "skipped_steps": 1},
        LOG[2],
    ]
    assert records[0]["skipped_steps"] == 1


def test_skipping_changes_nothing_if_all_is_finite(tmp_path):
    records = []
    assert fit(tmp_path, skip=True, records=records)[0] == TRAINED
    assert read_log(tmp_path) == LOG
    assert "skipped_steps" not in records[0]


def test_a_fully_skipped_epoch_raises(tmp_path):
    schedule = SCHEDULE._replace(steps_per_epoch=1, num_epochs=6)
    feed = resident_feed(lambda epoch: jnp.array(VISITED)[epoch][None])
    with pytest.raises(loop.NonFinite, match="no loss and gradient is finite in epo"):
        fit(tmp_path, schedule=schedule, feed=feed, failing_step=2, skip=True)
    assert saved_steps(tmp_path) == [1, 2]


def test_feeds_that_differ_in_arrays_share_a_program():
    traced = []

    @jax.tree_util.register_pytree_node_class
    class Order:
        def __init__(self, offset):
            self.offset = offset

        def __call__(self, epoch):
            traced.append(epoch)
            return epoch + self.offset + jnp.arange(2)

        def tree_flatten(self):
            return (self.offset,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    schedule = SCHEDULE._replace(steps_per_epoch=2, num_epochs=2)
    for offset in (10, 20):
        inputs = list(resident_feed(Order(np.int32(offset)))(schedule, 0))
        assert [int(x.first) for x in inputs] == [0, 0, 2, 2]
        wanted = [[offset, offset + 1]] * 2 + [[offset + 1, offset + 2]] * 2
        assert [x.steps.tolist() for x in inputs] == wanted
    assert len(traced) == 1
