"""Several processes that do the same work on one mesh, and how they agree.

All of them call all that is here, in the same order. Where there is one process,
nothing is sent.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# An exchange waits until the steps before it are done: rarely enough that this
# does not show, often enough for a scheduler that soon kills what it asks to end.
_SECONDS_BETWEEN_EXCHANGES = 1.0


def is_first() -> bool:
    """Whether this is process 0, which alone writes and prints."""
    return _is_alone() or sys.modules["jax"].process_index() == 0


def _is_alone() -> bool:
    # Where JAX was not needed, as to draw a report, it is not imported for this.
    return "jax" not in sys.modules or sys.modules["jax"].process_count() == 1


def warn(line: str) -> None:
    """Prints a warning, once for all processes."""
    if is_first():
        print(f"warning: {line}", file=sys.stderr, flush=True)


def _multihost():
    from jax.experimental import multihost_utils

    return multihost_utils


def from_first(value: Any) -> Any:
    """Process 0's value on all of them; made of what JSON holds."""
    if _is_alone():
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(_multihost().broadcast_one_to_all(np.int32(len(text))))
    text = text if is_first() else np.zeros(size, np.uint8)
    return json.loads(_multihost().broadcast_one_to_all(text).tobytes())


def any_of(flag: bool) -> bool:
    """Whether any process has the flag."""
    if _is_alone():
        return flag
    return bool(_multihost().process_allgather(np.bool_(flag)).any())


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """Process 0 runs the block, then the others do and find what it wrote."""
    if not is_first():
        _multihost().sync_global_devices("first_then_others")
    try:
        yield
    finally:
        # Also after an error, which the others then come upon themselves.
        if is_first() and not _is_alone():
            _multihost().sync_global_devices("first_then_others")


def stop_together(should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """A `should_stop` that says the same in all processes at the same step.

    They exchange what they were asked about once a second, in a collective; in
    between the answer is no. A signal that reaches one process so stops all.

    Args:
      should_stop: whether this process was asked to stop.

    Returns:
      A function that every process calls equally often.
    """
    if _is_alone():
        return should_stop
    # Calls until the next exchange, and from the last one to that.
    left, interval, exchanged = 1, 1, time.monotonic()

    def together() -> bool:
        nonlocal left, interval, exchanged
        left -= 1
        if left:
            return False
        now = time.monotonic()
        fitting = interval * _SECONDS_BETWEEN_EXCHANGES / max(now - exchanged, 1e-9)
        exchanged = now
        mine = np.array([should_stop(), max(1, min(2 * interval, int(fitting)))])
        every = _multihost().process_allgather(mine)
        left = interval = int(every[0, 1])  # process 0's: clocks differ
        return bool(every[:, 0].any())

    return together
