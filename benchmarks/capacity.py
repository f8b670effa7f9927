"""Finds the largest batch that fits in a given memory, by the compiler's plan.

Nothing is computed: a step is compiled from shapes at a few batch sizes. The plan is
that of the current backend; another one fuses differently, and may need extra workspace
for its convolutions.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from benchmarks import ours, tables
from benchmarks.cases import Case, Group, Step
from edp import ensemble
from edp.runtime import xla

Row = dict[str, Any]

NUM_MEMBERS = (4, 8)
_MULTIPLE = 8  # of practical batches
# The plan does not depend on the optimisation level of its kernels.
_OPTIONS = {"xla_backend_optimization_level": 0}


def peak_bytes(case: Case, step: Step) -> int:
    """Returns the peak bytes of a step, including its arguments."""
    made = {}

    def make():
        students = () if step.student is None else (step.student,)
        problem = ours.create_problem(case, students)
        strategy = ensemble.default_strategy()
        made["step"], state, resources = ours.create_step(problem, step, strategy)
        return state, resources

    state, resources = jax.eval_shape(make)
    jitted = jax.jit(made["step"], donate_argnums=0, compiler_options=_OPTIONS)
    return xla.peak_bytes(jitted.lower(state, resources).compile())


def largest_batch(bytes_of: Callable[[int], int], limit: int) -> tuple[int, int]:
    """Returns the largest multiple of 8 as batch that needs at most `limit` bytes.

    Args:
      bytes_of: batch size -> bytes, which grow about linearly.
      limit: in bytes.

    Returns:
      The batch and its bytes; 0 and the bytes of a batch of 8 if none fits.
    """
    known: dict[int, int] = {}

    def fits(units: int) -> bool:
        if units not in known:
            known[units] = bytes_of(units * _MULTIPLE)
        return known[units] <= limit

    if not fits(1):
        return 0, known[1]
    low, high = 1, None  # fits; does not
    while high is None or high - low > 1:
        # Linear interpolation between the two sizes nearest to the limit.
        others = [units for units in known if units != low]
        guess = 2 * low
        if others:
            other = min(others, key=lambda units: abs(units - low))
            slope = (known[other] - known[low]) / (other - low)
            guess = low + max(1, int((limit - known[low]) / max(slope, 1)))
        if high is not None:
            guess = min(guess, high - 1)
        low, high = (guess, high) if fits(guess) else (low, guess)
    return low * _MULTIPLE, known[low]


def ways(case: Case) -> dict[str, Case]:
    """Returns the case as it is, and with one member's activations in memory at a time.

    `remat` is not among them: the CPU compiler merges the recomputation with the first
    computation.
    """
    return {
        "all members at once": case,
        "members_at_once = 1": case._replace(members_at_once=1),
    }


def measure(
    groups: Sequence[Group], limit: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """Yields a row per case, step, number of members and way of saving memory."""
    for case, step in groups:
        for num_members in NUM_MEMBERS:
            sized = case._replace(num_members=num_members)
            for way, variant in ways(sized).items():

                def bytes_of(batch_size, variant=variant, step=step):
                    return peak_bytes(variant._replace(batch_size=batch_size), step)

                batch_size, needed = largest_batch(bytes_of, limit)
                row = {
                    "case": case.name,
                    "what": step.name,
                    "backend": jax.default_backend(),
                    "num_members": num_members,
                    "way": way,
                    "largest_batch": batch_size,
                    "peak_bytes": needed,
                }
                say(
                    f"  {case.name}, {step.name}, M = {num_members}, {way}: "
                    f"{batch_size} images ({needed / 2**30:.1f} GiB)"
                )
                yield row


def write(
    directory: pathlib.Path,
    groups: Sequence[Group],
    limit: int,
    say: Callable[[str], None],
) -> None:
    """Runs `measure` and writes its rows as they come; keeps earlier files."""
    tables.set_aside(directory, ["capacity"])
    rows: list[Row] = []
    for row in measure(groups, limit, say):
        rows.append(row)
        table = tables.write_capacity(directory, rows)
    say(f"\n{table}\n\nWritten: {directory}/capacity.md, .json")
