"""Tests the measurement of what other processes use of the CPUs."""

import pathlib

import pytest

from benchmarks import neighbours


def test_waiting_ends_with_a_quiet_second_or_in_time(monkeypatch):
    now, others = [0.0], iter([0.5, 0.05, 0.5, 0.5, 0.5])
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        neighbours.time, "sleep", lambda s: now.__setitem__(0, now[0] + s)
    )
    monkeypatch.setattr(neighbours, "usage", lambda: None)
    monkeypatch.setattr(neighbours, "other_cpus", lambda *_: next(others))
    neighbours.Monitor().wait(0.1, 9.0)
    assert now == [2.0]
    neighbours.Monitor().wait(0.1, 3.0)
    assert now == [5.0]


def test_other_work_is_what_is_not_our_own():
    # In ten seconds two cores gave 18, of which 15 were ours.
    before, after = neighbours.Usage(5, 100, 7), neighbours.Usage(15, 118, 22)
    assert neighbours.other_cpus(before, after) == pytest.approx(0.3)
    assert neighbours.other_cpus(None, after) is None


@pytest.mark.skipif(not pathlib.Path("/proc/stat").exists(), reason="needs /proc")
def test_own_work_counts_as_the_machines():
    before = neighbours.usage()
    while neighbours.usage().own < before.own + 0.2:
        sum(range(10_000))
    after = neighbours.usage()
    # The machine's clock ticks a hundred times a second.
    assert after.machine - before.machine > 0.15
    assert after.wall > before.wall
