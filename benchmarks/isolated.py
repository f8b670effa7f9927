"""Runs each contender in its own process.

Two libraries in one process slow each other down: on a CPU, XLA's steps took a third
longer once PyTorch had computed beside them, with four times as many context switches,
and PyTorch's steps a tenth longer.
"""

import contextlib
import importlib
import multiprocessing
import os
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import ours
from benchmarks.cases import Case, Step
from benchmarks.timing import Contender
from edp.runtime import xla


class Recipe(NamedTuple):
    """Picklable description of a contender.

    Attributes:
      case: see `Case`.
      step: see `Step`.
      strategy: name in `ensemble.STRATEGIES`, for edp; None for the peer.
      peer_mode: name in `peer.MODES`, for the peer; None for edp.
      steps_per_call: for edp; see `ours.create_contender`.
      kernels: name in `KERNELS`, for edp.
    """

    case: Case
    step: Step
    strategy: str | None = None
    peer_mode: str | None = None
    steps_per_call: int = 1
    kernels: str = "own"


# EDP_NATIVE of a contender's process: kernels of `edp.models.native`, or XLA's alone.
KERNELS = {"own": "1", "xla": "0"}


class Failed(Exception):
    """Raised for an error in a contender's process."""


def build(recipe: Recipe) -> Contender:
    """Creates the contender in this process."""
    case, step = recipe.case, recipe.step
    problem = ours.create_problem(case, () if step.student is None else [step.student])
    if recipe.peer_mode is None:
        return ours.create_contender(
            problem, step, recipe.strategy, recipe.steps_per_call
        )
    peer = importlib.import_module("benchmarks.peer")
    return peer.create_contender(problem, step, recipe.peer_mode)


@contextlib.contextmanager
def started(recipe: Recipe) -> Iterator[Contender]:
    """Creates the contender in a process that lives as long as the block.

    Raises:
      Failed: if it cannot be created. Its `run` raises this too.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, recipe), daemon=True)
    process.start()
    there.close()

    def receive():
        try:
            failure, value = here.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            raise Failed(f"its process ended with code {process.exitcode}") from None
        if failure is not None:
            raise Failed(failure)
        return value

    def run(calls: int) -> float:
        with contextlib.suppress(BrokenPipeError):  # `receive` tells why it ended
            here.send(calls)
        return receive()

    try:
        yield Contender(**receive(), run=run)
    finally:
        here.close()
        process.join(timeout=10)
        process.kill()


def _serve(connection, recipe: Recipe) -> None:
    """Makes as many calls as it is told, until the other end is closed."""
    os.environ["EDP_NATIVE"] = KERNELS[recipe.kernels]
    xla.keep_memory()
    contender = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            try:
                if contender is None:
                    contender = build(recipe)
                    value = contender._asdict()
                    del value["run"]
                else:
                    value = contender.run(connection.recv())
            except EOFError:
                raise
            except Exception as error:
                connection.send((f"{type(error).__name__}: {error}", None))
            else:
                connection.send((None, value))
            if contender is None:
                return
