"""Processes that decode many images.

Decoding a small image is mostly Python's work, which one thread at a time can do. So
many images are decoded in processes, one for each core.

These are Python processes that run `edp.data.decoding_worker` and exchange files and
pixels with this process through pipes. Those of `multiprocessing` and of libraries on
top of it would not do: spawned ones run the user's script again, which needs a guard
of `if __name__ == "__main__"`; forked ones may hang, as JAX runs threads; others
import all of `edp.data`, hence JAX. Pipes leave nothing behind, neither shared memory
nor files, and a process ends when its pipe does, however this process ends. Ctrl-C in
a terminal reaches this process alone.
"""

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from edp.data import decoding_worker
from edp.runtime import multihost

# Images for each process: a process takes 0.2 s to start, and an image of 32x32
# pixels 75 microseconds.
_IMAGES_PER_PROCESS = 4096
# NumPy need not start a thread for each core in each process.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

File = str | os.PathLike | BinaryIO


class DecodingProcesses:
    """Decoding processes, each of which prepares the images of one call at a time."""

    def __init__(self, number: int):
        """Starts the processes.

        Raises:
          OSError: if they cannot be started.
        """
        self.number = number
        self._all: list[subprocess.Popen] = []
        self._idle: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()
        program = pathlib.Path(decoding_worker.__file__)
        # `sys.path` finds all modules but those of an editable installation.
        path = _line([*map(str, sys.path), str(program.parents[2])])
        try:
            for _ in range(number):
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(program)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | _ONE_THREAD,
                    start_new_session=True,
                )
                self._all.append(process)
                _write(process, path)
            for process in self._all:
                _read_into(process, bytearray(1))
                self._idle.put(process)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes, at work or not."""
        for process in self._all:
            process.kill()
        for process in self._all:
            with contextlib.suppress(OSError):  # of input that is not yet written
                process.stdin.close()
            process.stdout.close()
            process.wait()

    def prepare(self, files: Sequence[File], pixels: np.ndarray, resize: str) -> bool:
        """Prepares image files in a process; may be called from several threads.

        Args:
          files: paths or open files [n].
          pixels: uint8 [n, H, W, C], C-contiguous, where the result is written.
          resize: see `image_preparation.prepare`; without random crops.

        Returns:
          False if one of the images cannot be prepared.

        Raises:
          RuntimeError: if the process has ended.
          ValueError: if there are not n files.
        """
        listed: list[str | int] = []
        content = b""
        for file, _ in zip(files, pixels, strict=True):
            if isinstance(file, str | os.PathLike):
                listed.append(os.fspath(file))
            else:
                one = file.read()
                listed.append(len(one))
                content += one
        task = _line([pixels.shape[1:], resize, listed]) + content
        answer = bytearray(1)
        process = self._idle.get()
        try:
            _write(process, task)
            _read_into(process, answer)
            if answer == decoding_worker.DONE:
                _read_into(process, memoryview(pixels).cast("B"))
        except OSError as error:
            raise RuntimeError(
                f"a decoding process ended with exit code {process.wait()}, which is "
                "minus the signal if one ended it (-9: perhaps for want of memory)"
            ) from error
        finally:
            self._idle.put(process)
        return answer == decoding_worker.DONE


@contextlib.contextmanager
def decoding(num_images: int) -> Iterator[DecodingProcesses | None]:
    """Yields processes to decode `num_images` images, ended with the block.

    Yields None for few images and on one core; and, with a warning, where processes
    cannot be started.
    """
    number, processes = _number_for(num_images), None
    if number > 1:
        try:
            processes = DecodingProcesses(number)
        except OSError as error:
            multihost.warn(f"images are decoded in one process: {error}")
    try:
        yield processes
    finally:
        if processes is not None:
            processes.close()


def _number_for(num_images: int) -> int:
    """Returns how many processes decode `num_images` images."""
    if not sys.executable or getattr(sys, "frozen", False):  # no interpreter to run
        return 0
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, num_images // _IMAGES_PER_PROCESS)


def _line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _write(process: subprocess.Popen, content: bytes) -> None:
    process.stdin.write(content)
    process.stdin.flush()


def _read_into(process: subprocess.Popen, buffer: bytearray | memoryview) -> None:
    """Fills a buffer from the output of a process.

    Raises:
      OSError: if the output ends before.
    """
    if process.stdout.readinto(buffer) < len(buffer):
        raise OSError(f"{sys.executable} ended early")
