"""Tests that training resumes after interruptions and crashes, and when it saves."""

import itertools

import jax.numpy as jnp
import pytest
from counted_loop import (
    LOG,
    SCHEDULE,
    TRAINED,
    VISITED,
    Crash,
    crash_after,
    fit,
    read_log,
    saved_steps,
    stop_after,
)

from edp.runtime import loop
from edp.runtime.feed import TrainingLength, resident_feed


@pytest.mark.parametrize("steps", range(6))
def test_resumes_from_any_step_as_if_never_interrupted(tmp_path, steps):
    with pytest.raises(loop.Interrupted, match=f"this: saved at step {steps} of 6"):
        fit(tmp_path, stop_after(steps))
    assert (tmp_path / "checkpoints" / str(steps)).is_dir()
    w, _, num_traces = fit(tmp_path)
    assert (w, num_traces) == (TRAINED, 1)
    assert read_log(tmp_path) == LOG


def test_resumes_after_every_single_step(tmp_path):
    for _ in range(5):
        with pytest.raises(loop.Interrupted):
            fit(tmp_path, stop_after(1))
    assert fit(tmp_path)[::2] == (TRAINED, 1)
    assert fit(tmp_path)[::2] == (TRAINED, 0)  # nothing is left to do
    assert read_log(tmp_path) == LOG


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
