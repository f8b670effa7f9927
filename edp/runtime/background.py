"""Work in a thread, beside the main one."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class _Worker(threading.Thread):
    pass


def begin(work: Callable[[], Any]) -> Future[Any]:
    """Begins `work()` in a thread; its result, or what it raises, is the future's."""
    future: Future[Any] = Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    _Worker(target=run).start()
    return future


def is_busy() -> bool:
    """Returns whether such work goes on."""
    return any(isinstance(thread, _Worker) for thread in threading.enumerate())


def end_process(code: int) -> None:
    """Ends the process at once if such work goes on; returns otherwise.

    A compilation cannot be interrupted, and Python waits for its threads at its end.
    """
    if is_busy():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
