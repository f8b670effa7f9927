"""Tests the rounds in which contenders are timed, with a simulated clock."""

import itertools
import math

import pytest

from benchmarks import timing


class Machine:
    """Clock with contenders that advance it."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def contender(self, name, seconds, steps_per_call=1, value=1.0):
        seconds = iter(seconds)

        def run(calls):
            self.log.append((name, calls))
            self.now += calls * next(seconds)
            return value

        return timing.Contender({"contender": name}, run, steps_per_call, {})


class Monitor:
    """Other work as given, one value for each interval; records waits."""

    def __init__(self, machine, others=None):
        self.machine = machine
        self.others = itertools.repeat(0.0) if others is None else iter(others)
        self.waits = []

    def begin(self):
        pass

    def other_cpus(self):
        return next(self.others)

    def wait(self, limit, seconds):
        self.waits.append((limit, seconds))


def test_contenders_take_turns():
    machine = Machine()
    # A first call, then the rounds.
    a = machine.contender("a", [1, 1, 2, 3])
    b = machine.contender("b", [4, 4, 8, 5], steps_per_call=2)
    budget = timing.Budget(rounds=3, round_seconds=2.0, contender_seconds=1e9)
    monitor = Monitor(machine)
    rounds, repeated = timing.alternate([a, b], budget, lambda: machine.now, monitor)
    seconds = [list(turns) for turns in zip(*(r.seconds for r in rounds), strict=True)]
    assert repeated == 0
    assert machine.log[:2] == [("a", 1), ("b", 1)]
    # Two calls of a fill a turn, one of b does; they swap who begins.
    turns = [("a", 2), ("b", 1), ("b", 1), ("a", 2), ("a", 2), ("b", 1)]
    assert machine.log[2:] == turns
    assert seconds == [[1, 2, 3], [2, 4, 2.5]]
    row = timing.summarise(seconds[1], batch_size=10)
    assert row["seconds_per_step"] == 2.5 and row["images_per_second"] == 4
    assert (row["seconds_per_step_min"], row["seconds_per_step_max"]) == (2, 4)
    # The rounds' own ratios are 2, 2 and 5/6.
    assert timing.ratio(*seconds) == 2


def test_time_runs_out_after_two_rounds_at_the_earliest():
    machine = Machine()
    slow = machine.contender("slow", [10] * 9)
    budget = timing.Budget(rounds=7, round_seconds=1.0, contender_seconds=5.0)
    rounds, _ = timing.alternate(
        [slow], budget, lambda: machine.now, Monitor(machine, [0.0, 0.9])
    )
    # There is no time left to repeat the second one.
    assert rounds == [timing.Round([10], 0.0), timing.Round([10], 0.9)]


def test_disturbed_rounds_are_repeated_after_a_wait():
    machine = Machine()
    # The first call, then rounds; the times do not decide which are kept.
    one = machine.contender("one", [1, 1, 9, 3, 2, 4])
    budget = timing.Budget(rounds=3, round_seconds=2.0, other_cpus=0.1, repeats=5)
    monitor = Monitor(machine, [0.0, 0.5, 0.1, 0.3, 0.0, 0.05])
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    assert rounds == [
        timing.Round([9], 0.1),
        timing.Round([2], 0.0),
        timing.Round([4], 0.05),
    ]
    assert repeated == 2
    assert monitor.waits == [(0.1, 10.0)] * 2


def test_on_a_busy_machine_the_quietest_rounds_are_kept():
    machine = Machine()
    one = machine.contender("one", range(1, 9))
    budget = timing.Budget(rounds=2, round_seconds=0.0, other_cpus=0.1, repeats=2)
    monitor = Monitor(machine, [0.8, 0.4, 0.9, 0.5])
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    # One call is a round here, so the first one counts; four rounds at most.
    assert rounds == [timing.Round([2], 0.4), timing.Round([4], 0.5)]
    assert repeated == 2
    assert len(machine.log) == 4


def test_where_other_work_is_unknown_nothing_is_repeated():
    machine = Machine()
    one = machine.contender("one", [1] * 9)
    budget = timing.Budget(rounds=3, round_seconds=0.0)
    monitor = Monitor(machine, [None] * 9)
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    assert (len(rounds), repeated) == (3, 0)


def test_nonsense_is_not_timed():
    broken = Machine().contender("broken", [1, 1, 1], value=math.nan)
    with pytest.raises(timing.NotFinite, match=r"broken.*nan"):
        timing.alternate([broken], timing.Budget())
