"""Starts the commands as users do, and inspects the files they write.

Run as a program, it is a server that forks a process for each command: equivalent to a
new process, without seconds of imports.
"""

import contextlib
import fcntl
import importlib
import json
import os
import pathlib
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import quick_compiler

ROOT = pathlib.Path(__file__).parents[2]
TINY = "tests/configs/tiny.py"
# Flags of runs that are not evaluated on shifted inputs.
UNSHIFTED = tuple(
    f"--config.evaluation.{name}=()"
    for name in ("ood_sets", "corruptions", "step_sizes")
)
SECONDS = 300  # for a process that hangs; far more than any takes


def module(command: str) -> str:
    """Returns the module of a command."""
    return command if command == "benchmarks" else f"launch.{command}"


class Done(NamedTuple):
    """Result of a command."""

    code: int
    stdout: str
    stderr: str


class Commands:
    """Commands that share a directory of compiled programs."""

    def __init__(self, cache: pathlib.Path):
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "XLA_FLAGS": quick_compiler.FLAGS,
            # JAX does not write them at once: one may read what another writes.
            "PYTHONWARNINGS": "ignore:Error reading persistent compilation cache",
        }

    def popen(self, arguments: list[str], env=(), **options) -> subprocess.Popen:
        """Starts Python in the repository's root."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._environment | dict(env),
            text=True,
            **options,
        )

    def start(self, command: str, *flags: str, env=()) -> subprocess.Popen:
        """Starts a command; give its output to `finish`."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.popen(["-m", module(command), *flags], env, **streams)

    def run(self, command: str, *flags: str, env=()) -> Done:
        """Runs a command to its end."""
        return finish(self.start(command, *flags, env=env))


def finish(process: subprocess.Popen) -> Done:
    """Waits for a process."""
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return Done(process.returncode, stdout, stderr)


def succeed(done: Done) -> Done:
    """Asserts that a command succeeded, and returns its result."""
    assert done.code == 0, done
    return done


def tiny(workdir: pathlib.Path, students: str = "") -> list[str]:
    """Returns the flags of a tiny run, with its own students or those named."""
    config = f"{TINY}:{students}" if students else TINY
    return [f"--config={config}", f"--workdir={workdir}"]


def wait_for(condition: Callable[[], Any], process: subprocess.Popen) -> None:
    """Waits until a condition holds; fails if the process ends before."""
    end = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None and not condition():
            raise AssertionError(f"ended too early: {finish(process)}")
        assert time.monotonic() < end
        time.sleep(0.002)


def num_lines(path: pathlib.Path) -> int:
    """Counts complete lines of a file that may not exist yet."""
    return path.read_text().count("\n") if path.exists() else 0


def snapshot(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Returns the modification time and content of each file below a directory."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock for one process at a time; released if the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Server:
    """Runs commands in forks of a process that has imported everything."""

    def __init__(self, commands: Commands):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = commands.popen([__file__], **streams)

    def run(
        self,
        command: str,
        *flags: str,
        log_compiles: bool = False,
        kill: tuple[int, float] | None = None,
        max_file_bytes: int | None = None,
    ) -> Done:
        """Runs a command to its end.

        Args:
          command: name of a command of `launch`.
          *flags: its flags.
          log_compiles: whether compilations are logged to stderr.
          kill: (signal, seconds): sends the signal after that time.
          max_file_bytes: file size limit, which simulates a full disk.
        """
        options = [log_compiles, max_file_bytes, module(command), *flags]
        self._process.stdin.write(json.dumps([kill, options]) + "\n")
        self._process.stdin.flush()
        return Done(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=SECONDS)


def _serve() -> None:
    sys.path[0] = str(ROOT)  # as with -m
    # Not `launch`, whose flags each command defines for itself.
    import ml_collections.config_flags  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tqdm  # noqa: F401

    from edp import data, evaluation, experiment, report, runtime

    for room in (data, evaluation, experiment, report, runtime):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(found.name)

    for line in sys.stdin:
        kill, options = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            if (child := os.fork()) == 0:
                signal.alarm(SECONDS)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os._exit(_run(*options))
            if kill is not None:
                _kill(child, *kill)
            _, status = os.waitpid(child, 0)
            for file in (out, err):
                file.seek(0)
            done = Done(os.waitstatus_to_exitcode(status), out.read(), err.read())
        print(json.dumps(done), flush=True)


def _kill(child: int, number: int, seconds: float) -> None:
    """Sends a process a signal after a delay, unless it has ended."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(min(left, 0.002))
    os.kill(child, number)


def _run(
    log_compiles: bool, max_file_bytes: int | None, module: str, *flags: str
) -> int:
    """Runs a module as `python -m` does and returns the exit code."""
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes,) * 2)
    jax.config.update("jax_log_compiles", log_compiles)
    sys.argv = [module, *flags]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
