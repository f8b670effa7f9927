"""Tests work in threads: its results, its errors, and the end of the process."""

import subprocess
import sys
import time

import pytest

from edp.runtime import background

WORKING = """
import sys, time
from edp.runtime import background
background.begin(lambda: time.sleep(60))
print("begun")
background.end_process(75)
"""


def test_future_has_the_result_or_the_error():
    assert background.begin(lambda: 3).result(timeout=10) == 3
    with pytest.raises(ZeroDivisionError):
        background.begin(lambda: 1 // 0).result(timeout=10)


def test_process_ends_without_waiting_for_the_work():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", WORKING], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (75, "begun\n")
    assert time.monotonic() - began < 30


def test_end_process_returns_if_no_work_goes_on():
    future = background.begin(lambda: None)
    future.result(timeout=10)
    for _ in range(100):  # the thread ends after its future is set
        if not background.is_busy():
            break
        time.sleep(0.01)
    background.end_process(1)
