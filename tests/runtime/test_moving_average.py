"""Tests of the moving average of the trained variables."""

import jax
import jax.numpy as jnp
import pytest
from counted_loop import LOG, TRAINED, VISITED, fit, read_log, stop_after

from edp.runtime import loop, steps
from edp.runtime.state import TrainState


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
