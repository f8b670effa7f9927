"""Timing contenders fairly: in turns, round by round, within one process.

Machines drift: clocks change, neighbours come and go. Contenders that take turns
share that drift, and two numbers of one round can be compared when numbers of two
separate runs cannot.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Contender(NamedTuple):
    """Something that can be timed.

    Attributes:
      labels: what it is: `contender` and, where they apply, `strategy` and others.
      run: makes so many calls of the step, waits for the last one's results and
        returns a number computed from them (the loss), to be checked.
      steps_per_call: optimizer steps in one call.
      facts: what is known without timing, such as `compile_seconds`.
    """

    labels: dict[str, Any]
    run: Callable[[int], float]
    steps_per_call: int
    facts: dict[str, Any]


class Budget(NamedTuple):
    """How long to measure.

    Attributes:
      rounds: in each, every contender has one turn.
      round_seconds: a turn is as many calls as fill this long, at least one.
      group_seconds: no further round begins after this long, but for the second.
    """

    rounds: int = 7
    round_seconds: float = 2.0
    group_seconds: float = 600.0


class NotFinite(ArithmeticError):
    """A contender's loss became infinite or not a number."""


def alternate(
    contenders: Sequence[Contender],
    budget: Budget,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Times contenders in turns.

    Each is first run for one call, to learn how many calls fill a turn; where one
    does for all, that was a round. Round i begins with contender i mod n, so that
    none always follows the same one.

    Args:
      contenders: n of them, warm: they have made a call already.
      budget: see `Budget`.
      clock: seconds, from any origin.

    Returns:
      Per contender, its seconds per step in each round.

    Raises:
      NotFinite: a contender computes nothing meaningful.
    """
    started = clock()

    def timed(contender: Contender, calls: int) -> float:
        before = clock()
        value = contender.run(calls)
        seconds = (clock() - before) / (calls * contender.steps_per_call)
        if not math.isfinite(value):
            raise NotFinite(f"{contender.labels}: the loss is {value}")
        return seconds

    seconds = [[timed(contender, 1)] for contender in contenders]
    calls = [
        max(1, round(budget.round_seconds / max(first * c.steps_per_call, 1e-9)))
        for c, (first,) in zip(contenders, seconds, strict=True)
    ]
    done = int(max(calls, default=1) == 1)
    if not done:
        seconds = [[] for _ in contenders]
    for index in range(done, budget.rounds):
        if index >= 2 and clock() - started > budget.group_seconds:
            break
        for turn in range(len(contenders)):
            which = (index + turn) % len(contenders)
            seconds[which].append(timed(contenders[which], calls[which]))
    return seconds


def summarise(seconds: Sequence[float], batch_size: int) -> dict[str, Any]:
    """What a row tells of the rounds of one contender.

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
    """How many times faster than the reference, the median over paired rounds.

    Args:
      ours: seconds per step in each round.
      reference: likewise, of the same rounds.
    """
    pairs = zip(ours, reference, strict=True)
    return statistics.median(theirs / own for own, theirs in pairs)
