"""Tests the training loop, its dispatches and feeds on a step followed by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_loop import (
    LOG,
    RESIDENT,
    SCHEDULE,
    TRAINED,
    VISITED,
    fit,
    read_log,
    stop_after,
    streamed_feed,
)

from edp.runtime import loop
from edp.runtime.feed import TrainingLength, resident_feed


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
