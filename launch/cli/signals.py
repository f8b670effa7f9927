"""Handles SIGTERM and Ctrl-C while a stage is trained."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from edp.runtime import multihost

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_on_signals() -> None:
    """Makes SIGTERM and Ctrl-C raise KeyboardInterrupt."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGTERM or Ctrl-C into a request to stop, inside the block.

    A second signal ends the process. If the block ends without having seen the request,
    leaving it raises KeyboardInterrupt.

    Yields:
      A function that returns whether to stop. Of several processes, all see the request
      at the same step, whichever got the signal.
    """
    received = []

    def receive(number, frame):
        received.append(number)
        if len(received) > 1:
            signal.default_int_handler(number, frame)
        os.write(2, b"\nstopping after this step; once more to stop at once\n")

    previous = {number: signal.signal(number, receive) for number in _SIGNALS}
    try:
        yield multihost.stop_together(lambda: bool(received))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if multihost.any_of(bool(received)):
        raise KeyboardInterrupt
