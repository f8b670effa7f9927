"""How busy the machine is with other work, which spoils measurements.

It spoils them unequally. OpenMP's threads, which PyTorch computes with on a CPU,
wait for each other after every operation: one other process on one of two cores
was seen to slow them down 7 times (100 times, as they spin by default), and XLA's
1.1 times.
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
      wall: that passed.
      machine: that all cores together were busy.
      own: of those, with this process and those that it started.
    """

    wall: float
    machine: float
    own: float


def usage() -> Usage | None:
    """What has been used until now; None where the system does not tell."""
    if not _STAT.exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4])  # of children, only those that ended
    for child in multiprocessing.active_children():
        # After the name in parentheses: user and system time are the 12th and 13th.
        stat = pathlib.Path(f"/proc/{child.pid}/stat").read_text()
        own += sum(map(int, stat.rsplit(")", 1)[1].split()[11:13])) / tick
    fields = _STAT.read_text().split("\n", 1)[0].split()
    ticks = sum(int(fields[index]) for index in _BUSY_FIELDS)
    return Usage(time.monotonic(), ticks / tick, own)


def other_cpus(before: Usage | None, after: Usage | None) -> float | None:
    """How many cores were busy with other work, on average, between the two."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    others = (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, others / (after.wall - before.wall))


class Monitor:
    """Measures other work over intervals of one's own."""

    def begin(self) -> None:
        """Begins an interval."""
        self._before = usage()

    def other_cpus(self) -> float | None:
        """Returns the cores' worth of other work since `begin`; None if unknown."""
        return other_cpus(self._before, usage())

    def wait(self, limit: float, seconds: float) -> None:
        """Waits for a second with at most `limit` cores of other work.

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
