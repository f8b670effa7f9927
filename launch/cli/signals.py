"""Requests to stop: what SIGTERM and Ctrl-C mean while a stage is trained."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from edp.runtime import multihost

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_on_signals() -> None:
    """Has both raise KeyboardInterrupt, wherever the process is."""
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While open, SIGTERM and Ctrl-C do not end the process; the function tells.

    A second one ends it after all. So does the first, on leaving, if whoever asks
    the function did not come to it again. Of several processes it tells all at the
    same step, whichever got the signal.
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
