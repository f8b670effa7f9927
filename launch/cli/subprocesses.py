"""Runs commands as child processes, one after another."""

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence


def passed_on(argv: Sequence[str], own: Sequence[str]) -> list[str]:
    """Returns the flags of a command line except those named `own`, with values."""
    kept, is_value = [], False
    for token in argv:
        found = None
        if not is_value:
            found = re.fullmatch(rf"--?({'|'.join(own)})(=.*)?", token, re.DOTALL)
            if not found:
                kept.append(token)
        is_value = found is not None and found[2] is None
    return kept


class Children:
    """Runs commands that share this process's output, and forwards signals to them.

    A command gets each signal once, whether sent to this process or typed at the
    terminal, and decides itself how to end. `stopped` says whether there was one.
    """

    def __init__(self, environment: Mapping[str, str]):
        self.stopped = False
        self._environment = dict(environment)
        self._child: subprocess.Popen | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)

    def run(self, module: str, flags: Sequence[str]) -> int:
        """Runs `python -m module flags`; returns its code, or 128 + the signal."""
        sys.stdout.flush()
        # Outside the terminal's process group, which gets the signals typed there.
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *flags],
            env=self._environment,
            process_group=0,
        )
        if self.stopped:  # before the child existed
            self._child.terminate()
        code = self._child.wait()
        return code if code >= 0 else 128 - code

    def _forward(self, number, frame) -> None:
        self.stopped = True
        if self._child is not None:
            self._child.send_signal(number)
