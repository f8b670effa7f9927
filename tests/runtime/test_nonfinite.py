"""Tests that non-finite updates are raised, or skipped where this is chosen."""

import jax.numpy as jnp
import pytest
from counted_loop import (
    LOG,
    SCHEDULE,
    TRAINED,
    VISITED,
    fit,
    read_log,
    saved_steps,
    stop_after,
)

from edp.runtime import loop
from edp.runtime.feed import resident_feed


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
