"""Times contenders in alternating turns, round by round.

Machines drift: clocks change, and so does other load. Contenders that alternate share
that drift, so two numbers of one round are comparable where numbers of two separate
runs are not. Rounds disturbed by other processes are repeated. Each contender runs in
its own process, which `isolated` starts.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import neighbours


class Contender(NamedTuple):
    """Timed step of one library.

    Attributes:
      labels: `contender` and, if they apply, `strategy` and others.
      run: makes a number of calls of the step, waits for the last results and returns a
        number computed from them (the loss), to be checked.
      steps_per_call: optimizer steps per call.
      facts: facts known without timing, such as `compile_seconds`.
    """

    labels: dict[str, Any]
    run: Callable[[int], float]
    steps_per_call: int
    facts: dict[str, Any]


class Budget(NamedTuple):
    """Measuring time.

    Attributes:
      rounds: number of rounds; every contender has one turn in each.
      round_seconds: a turn makes as many calls as fit in this time, at least one.
      contender_seconds: no round begins after this time per contender, except the
        second.
      other_cpus: load of other processes, in cores, above which a round is repeated.
      repeats: rounds that may be repeated.
      wait_seconds: how long to wait for an idle machine before a round is repeated.
    """

    rounds: int = 7
    round_seconds: float = 2.0
    contender_seconds: float = 300.0
    other_cpus: float = 0.1
    repeats: int = 7
    wait_seconds: float = 10.0


class Round(NamedTuple):
    """One turn of every contender.

    Attributes:
      seconds: per step, of each contender.
      other_cpus: load of other processes meanwhile, in cores; None if unknown.
    """

    seconds: list[float]
    other_cpus: float | None


class NotFinite(ArithmeticError):
    """Raised if a contender's loss is infinite or not a number."""


def alternate(
    contenders: Sequence[Contender],
    budget: Budget,
    clock: Callable[[], float] = time.perf_counter,
    monitor: neighbours.Monitor | None = None,
) -> tuple[list[Round], int]:
    """Times contenders in turns.

    Each first runs one call, to find how many calls fill a turn; if one call fills it
    for all, these calls are the first round. Round i begins with contender i mod n, so
    that the order alternates. A round with more than `budget.other_cpus` of other load
    is repeated after a wait for an idle machine, up to `budget.repeats` times. Of all
    rounds, the `budget.rounds` with the least other load are kept, whatever their
    times.

    Args:
      contenders: n contenders that have made a warm-up call.
      budget: see `Budget`.
      clock: returns seconds from any origin.
      monitor: measures the load of other processes; by default `neighbours.Monitor()`.

    Returns:
      The rounds kept, in the order of measurement, and the number repeated.

    Raises:
      NotFinite: a contender's loss is not finite.
    """
    monitor = monitor or neighbours.Monitor()
    started = clock()

    def timed(contender: Contender, calls: int) -> float:
        before = clock()
        value = contender.run(calls)
        seconds = (clock() - before) / (calls * contender.steps_per_call)
        if not math.isfinite(value):
            raise NotFinite(f"{contender.labels}: the loss is {value}")
        return seconds

    def measure(index: int, calls: Sequence[int]) -> Round:
        seconds = [0.0] * len(contenders)
        monitor.begin()
        for turn in range(len(contenders)):
            which = (index + turn) % len(contenders)
            seconds[which] = timed(contenders[which], calls[which])
        return Round(seconds, monitor.other_cpus())

    def disturbed(one: Round) -> bool:
        return (one.other_cpus or 0.0) > budget.other_cpus

    if not contenders:
        return [], 0
    first = measure(0, [1] * len(contenders))
    calls = [
        max(1, round(budget.round_seconds / max(seconds * c.steps_per_call, 1e-9)))
        for c, seconds in zip(contenders, first.seconds, strict=True)
    ]
    rounds = [first] if max(calls) == 1 else []
    limit = budget.contender_seconds * len(contenders)
    while len(rounds) - sum(map(disturbed, rounds)) < budget.rounds:
        if len(rounds) >= budget.rounds + budget.repeats:
            break
        if len(rounds) >= 2 and clock() - started > limit:
            break
        if rounds and disturbed(rounds[-1]):
            monitor.wait(budget.other_cpus, budget.wait_seconds)
        rounds.append(measure(len(rounds), calls))
    kept = sorted(range(len(rounds)), key=lambda i: rounds[i].other_cpus or 0.0)
    kept = sorted(kept[: budget.rounds])
    return [rounds[i] for i in kept], len(rounds) - len(kept)


def summarise(seconds: Sequence[float], batch_size: int) -> dict[str, Any]:
    """Summarises the rounds of one contender for a row.

    Args:
      seconds: per step, in each round.
      batch_size: training images in a step.

    Returns:
      Medians and extremes of `seconds_per_step`, `images_per_second` (of the
      median) and the rounds themselves.
    """
    median = statistics.median(seconds)
    return {
        "images_per_second": batch_size / median,
        "seconds_per_step": median,
        "seconds_per_step_min": min(seconds),
        "seconds_per_step_max": max(seconds),
        "round_seconds_per_step": list(seconds),
    }


def ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    """Returns the speed relative to the reference: the median over paired rounds.

    Args:
      ours: seconds per step in each round.
      reference: likewise, of the same rounds.
    """
    pairs = zip(ours, reference, strict=True)
    return statistics.median(theirs / own for own, theirs in pairs)
