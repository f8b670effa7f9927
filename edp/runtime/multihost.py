"""Agreement of several processes that run the same program on one mesh.

Every process calls these functions in the same order. A single process communicates
nothing.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# An exchange waits for the steps before it: rare enough to cost little, often enough
# for a scheduler that kills soon after its signal.
_SECONDS_BETWEEN_EXCHANGES = 1.0


def is_first() -> bool:
    """Returns whether this is process 0, the only one that writes and prints."""
    return _is_alone() or sys.modules["jax"].process_index() == 0


def _is_alone() -> bool:
    # Does not import JAX for commands that do not need it, such as a report.
    return "jax" not in sys.modules or sys.modules["jax"].process_count() == 1


def warn(line: str) -> None:
    """Prints a warning, once for all processes."""
    if is_first():
        print(f"warning: {line}", file=sys.stderr, flush=True)


def _multihost():
    from jax.experimental import multihost_utils

    return multihost_utils


def from_first(value: Any) -> Any:
    """Returns process 0's value, of JSON types, in every process."""
    if _is_alone():
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(_multihost().broadcast_one_to_all(np.int32(len(text))))
    text = text if is_first() else np.zeros(size, np.uint8)
    return json.loads(_multihost().broadcast_one_to_all(text).tobytes())


def any_of(flag: bool) -> bool:
    """Returns whether any process has the flag."""
    if _is_alone():
        return flag
    return bool(_multihost().process_allgather(np.bool_(flag)).any())


@contextlib.contextmanager
def first_then_others() -> Iterator[None]:
    """Runs the block in process 0, then in the others, which see what it wrote."""
    if not is_first():
        _multihost().sync_global_devices("first_then_others")
    try:
        yield
    finally:
        # Also after an error, which the others then run into themselves.
        if is_first() and not _is_alone():
            _multihost().sync_global_devices("first_then_others")


def stop_together(should_stop: Callable[[], bool]) -> Callable[[], bool]:
    """Returns a `should_stop` that agrees in all processes at the same step.

    Processes exchange their flags about once a second, in a collective; in between it
    returns False. So a signal to one process stops all.

    Args:
      should_stop: returns whether this process was asked to stop.

    Returns:
      A function that every process must call equally often.
    """
    if _is_alone():
        return should_stop
    # Calls until the next exchange, and between the last exchange and the next.
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
        left = interval = int(every[0, 1])  # process 0's, as clocks differ
        return bool(every[:, 0].any())

    return together
