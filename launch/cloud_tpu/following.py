"""Runs or prints commands, and polls a machine until its run ends."""

import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from edp.errors import InputError

from ..cli.exit_codes import EXIT_FAILURE, EXIT_INTERRUPTED
from . import commands as tpu
from . import states
from .commands import Command
from .machine import Machine

# Consecutive failures allowed: to set up a machine that exists, and to query its state.
_MOST_FAILURES = {"setup": 3, "ask": 30}


class Runner:
    """Runs commands, or only prints them.

    Args:
      root: directory of the checkout, where they run.
      dry: whether to print them only.
      seconds: between polls of a machine.
      sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        root: pathlib.Path,
        *,
        dry: bool,
        seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._root, self._dry, self._seconds, self._sleep = root, dry, seconds, sleep

    def all(self, commands: Sequence[Command]) -> int:
        """Runs commands until one fails; returns the exit code of the last."""
        for command in commands:
            print(shlex.join(command), flush=True)
            if not self._dry and (code := self._call(command).returncode):
                return code
        return 0

    def follow(self, machine: Machine, flags: Sequence[str], delete: bool) -> int:
        """Starts a run and waits for its end; returns its exit code.

        A preemptible machine is created if it is missing, and recreated when it is
        gone.
        """
        if self._dry:
            return self._show(machine, flags, delete)
        try:
            code = self._follow(machine, flags)
        except KeyboardInterrupt:
            print(
                "stopped waiting; the run, if started, continues: the same command "
                "waits again, delete ends it and the machine",
                file=sys.stderr,
            )
            return EXIT_INTERRUPTED
        if code == 0 and delete:
            return self.all([tpu.delete(machine)])
        return code

    def _follow(self, machine: Machine, flags: Sequence[str]) -> int:
        known, last = states.NOT_STARTED, None
        failures = dict.fromkeys(_MOST_FAILURES, 0)
        while True:
            state = self._state(machine)
            failures["ask"] = failures["ask"] + 1 if state == states.UNKNOWN else 0
            if state == "READY" and known == states.RUNNING:
                known = self._poll(machine)
            elif state in (*states.GONE, states.MISSING):
                known = states.NOT_SET_UP
            if (state, known) != last:
                last = state, known
                print(f"# {machine.name} is {state}; the run: {known}", flush=True)
            action = states.next_action(machine, state, known)
            if action == "end" or self._too_many(failures):
                return self._code(machine, state, known)
            if action == "wait":
                self._sleep(self._seconds)
            elif self.all(tpu.commands(machine, action, flags)) == 0:
                known, failures["setup"] = states.RUNNING, 0
                self._sleep(self._seconds)
            elif not machine.may_go:
                return EXIT_FAILURE
            else:
                # No capacity, or preempted meanwhile: the next state will tell.
                failures["setup"] += action in ("setup", "start")
                known = states.NOT_SET_UP
                self._sleep(self._seconds)

    def _show(self, machine: Machine, flags: Sequence[str], delete: bool) -> int:
        """Prints the commands of `follow` with the condition for each."""
        print("# now" + (", if the machine exists" * machine.may_go))
        self.all(tpu.commands(machine, "start", flags))
        print(f"# then every {self._seconds:g} s, until it prints an exit code")
        self.all([tpu.describe(machine), tpu.poll(machine)])
        if machine.may_go:
            print("# if there is no machine")
            self.all(tpu.commands(machine, "create", flags))
            print(f"# when it is {' or '.join(states.GONE)}")
            self.all(tpu.commands(machine, "recreate", flags))
        if delete:
            print("# when the run has ended with exit code 0")
            self.all([tpu.delete(machine)])
        return 0

    def _state(self, machine: Machine) -> str:
        asked = self._call(tpu.describe(machine), capture_output=True)
        if asked.returncode == 0:
            return asked.stdout.strip() or states.UNKNOWN
        return states.MISSING if "NOT_FOUND" in asked.stderr else states.UNKNOWN

    def _poll(self, machine: Machine) -> str:
        asked = self._call(tpu.poll(machine), capture_output=True)
        lines = asked.stdout.split()
        return lines[-1] if asked.returncode == 0 and lines else states.RUNNING

    def _code(self, machine: Machine, state: str, known: str) -> int:
        if state == "READY" and known.isdecimal():
            if known != "0":
                print(
                    f"the run ended with exit code {known}; see logs", file=sys.stderr
                )
            return int(known)
        print(f"failed: {machine.name} is {state}; the run: {known}", file=sys.stderr)
        return EXIT_FAILURE

    @staticmethod
    def _too_many(failures: dict[str, int]) -> bool:
        return any(failures[what] >= most for what, most in _MOST_FAILURES.items())

    def _call(self, command: Command, **options) -> subprocess.CompletedProcess:
        try:
            return subprocess.run(command, cwd=self._root, text=True, **options)
        except FileNotFoundError as error:
            raise InputError(f"{command[0]} is not installed here") from error
