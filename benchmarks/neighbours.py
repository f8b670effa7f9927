"""Measures how busy the machine is with other work, which distorts timings.

The distortion is unequal. The OpenMP threads of PyTorch on a CPU wait for each other
after every operation: one other process on one of two cores slowed them down 7 times
(100 times with the default spinning), and XLA's threads 1.1 times.
"""

import multiprocessing
import os
import pathlib
import time
from typing import NamedTuple

_STAT = pathlib.Path("/proc/stat")
# user, nice, system, irq, softirq and steal of its first line; not idle or iowait.
_BUSY_FIELDS = (1, 2, 3, 6, 7, 8)


class Usage(NamedTuple):
    """Seconds since some origin.

    Attributes:
      wall: elapsed seconds.
      machine: busy seconds, summed over all cores.
      own: the part of `machine` used by this process and its children.
    """

    wall: float
    machine: float
    own: float


def usage() -> Usage | None:
    """Returns the usage so far; None if the system does not report it."""
    if not _STAT.exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4])  # children count after they end
    for child in multiprocessing.active_children():
        # After the name in parentheses: user and system time are the 12th and 13th.
        stat = pathlib.Path(f"/proc/{child.pid}/stat").read_text()
        own += sum(map(int, stat.rsplit(")", 1)[1].split()[11:13])) / tick
    fields = _STAT.read_text().split("\n", 1)[0].split()
    ticks = sum(int(fields[index]) for index in _BUSY_FIELDS)
    return Usage(time.monotonic(), ticks / tick, own)


def other_cpus(before: Usage | None, after: Usage | None) -> float | None:
    """Returns the mean number of cores busy with other work between two readings."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, others / (after.wall - before.wall))


class Monitor:
    """Load of other processes over chosen intervals."""

    def begin(self) -> None:
        """Begins an interval."""
        self._before = usage()

    def other_cpus(self) -> float | None:
        """Returns the other load since `begin`, in cores; None if unknown."""
        return other_cpus(self._before, usage())

    def wait(self, limit: float, seconds: float) -> None:
        """Waits for a second with at most `limit` cores of other load.

        Args:
          limit: cores.
          seconds: the longest wait.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.begin()
            time.sleep(1)
            if (self.other_cpus() or 0.0) <= limit:
                return
