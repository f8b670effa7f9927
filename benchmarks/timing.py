"""Times contenders in alternating turns, round by round.

Machines drift: clocks change, and so does other load. Contenders that alternate share
that drift, so two numbers of one round are comparable where numbers of two separate
runs are not.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


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
      group_seconds: no round begins after this time, except the second.
    """

    rounds: int = 7
    round_seconds: float = 2.0
    group_seconds: float = 600.0


class NotFinite(ArithmeticError):
    """Raised if a contender's loss is infinite or not a number."""


def alternate(
    contenders: Sequence[Contender],
    budget: Budget,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Times contenders in turns.

    Each first runs one call, to find how many calls fill a turn; if one call does for
    all, that was a round. Round i begins with contender i mod n, so that none always
    follows the same one.

    Args:
      contenders: n contenders that have made a warm-up call.
      budget: see `Budget`.
      clock: returns seconds from any origin.

    Returns:
      Per contender, the seconds per step in each round.

    Raises:
      NotFinite: a contender's loss is not finite.
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
