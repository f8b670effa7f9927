"""Tests that processes agree on when to stop."""

import itertools
import threading
import types
from concurrent import futures

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from edp.runtime import multihost


@pytest.fixture
def two_threads(monkeypatch):
    """Runs a function in two threads that are processes 0 and 1 to each other.

    Each sets its own clock, `own.now`.
    """
    own, both, said = threading.local(), threading.Barrier(2, timeout=60), [None] * 2

    def allgather(value):
        said[own.index] = value
        both.wait()
        result = np.stack(said)
        both.wait()
        return result

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", allgather)
    clock = types.SimpleNamespace(monotonic=lambda: own.now)
    monkeypatch.setattr(multihost, "time", clock)

    def run(function):
        def one(index):
            own.index, own.now = index, 0.0
            return function(index, own)

        with futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    return run


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 10), (0.001, 1000), (7, 1)])
def test_processes_stop_at_the_same_step_soon_after_one_is_asked(
    asked, seconds, limit, two_threads
):
    def train(index, own):
        """Returns the step at which the loop stopped."""
        step = 0
        should_stop = multihost.stop_together(lambda: index == asked and step >= 300)
        for step in itertools.count():
            own.now += seconds * (1 + index)  # process 1's clock is a bad one
            if should_stop():
                return step

    first, second = two_threads(train)
    assert first == second
    assert 300 <= first < 300 + limit


def test_alone_a_request_is_heard_at_once():
    should_stop = multihost.stop_together(lambda: True)
    assert should_stop()
    assert multihost.any_of(True) and not multihost.any_of(False)
    assert multihost.from_first({"a": [1, None]}) == {"a": [1, None]}
