"""Measures groups of contenders and makes rows of what they took."""

import functools
import importlib
import pathlib
import platform
import shlex
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from edp import workdir
from edp.benchmark import limits, neighbours, ours, tables, timing
from edp.benchmark.cases import Group, Step
from edp.errors import InputError

PEERS = ("eager", "compile", "cudagraphs")
Row = dict[str, Any]

# Cores' worth of other work above which numbers are not worth quoting.
_BUSY = 0.1


class Settings(NamedTuple):
    """Who takes part and how long.

    Attributes:
      strategies: of `ensemble.STRATEGIES`; the first one alone measures steps of
        one member.
      peers: names in `PEERS`, none for ours only.
      budget: see `timing.Budget`.
      steps_per_call: of ours; see `ours.create_contender`.
    """

    strategies: tuple[str, ...]
    peers: tuple[str, ...]
    budget: timing.Budget
    steps_per_call: int = 1


class Rates(NamedTuple):
    """Measured peaks, in operations per second; see `limits`."""

    matmul: float
    convolution: float | None  # on CPU only


def find_peer():
    """The module `peer`.

    Raises:
      InputError: if PyTorch, or its support for this device, is missing.
    """
    try:
        peer = importlib.import_module("edp.benchmark.peer")
    except (ImportError, OSError) as error:  # OSError: a library that it loads
        raise InputError(f"PyTorch cannot be imported ({error})") from error
    peer.find_device()
    return peer


def measure_rates(precision: str) -> Rates:
    """The device's peaks in one precision."""
    on_cpu = jax.default_backend() == "cpu"
    convolution = limits.convolution_rate(precision) if on_cpu else None
    return Rates(limits.matmul_rate(precision), convolution)


def write(
    directory: pathlib.Path,
    groups: Sequence[Group],
    settings: Settings,
    command: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """`run`, its rows written to `directory` as they come; earlier ones are kept."""
    tables.set_aside(directory, ["benchmark", "machine"])
    rows: list[Row] = []
    for new, metadata in run(groups, settings, command, say):
        rows += new
        tables.write(directory, metadata, rows)  # each time, lest it be lost
        for row in new:
            say(f"  {tables.describe(row)}")
    say(f"\n{tables.format_table(rows)}\n\nWritten: {directory}/benchmark.md, .json")


def run(
    groups: Sequence[Group],
    settings: Settings,
    command: Sequence[str],
    say: Callable[[str], None],
) -> Iterator[tuple[list[Row], Row]]:
    """Measures group by group.

    Args:
      groups: what to measure.
      settings: see `Settings`.
      command: the arguments of the command, for the record.
      say: told what goes on, a line at a time.

    Yields:
      After each group, its rows and the metadata of all so far.
    """
    metadata = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["python", "-m", "launch.benchmark", *command]),
        **workdir.run_facts(),
        "cpu": _cpu_model(),
    }
    peer = None
    if settings.peers:
        try:
            peer = find_peer()
            metadata |= peer.versions()
        except InputError as error:
            say(f"{error}: timing this project alone, without ratios.")
    rates: dict[str, Rates] = {}
    problem = None
    for group in groups:
        case = group.case
        if case.precision not in rates:
            rates[case.precision] = measure_rates(case.precision)
        if problem is None or problem.case != case:
            steps = [other.step for other in groups if other.case == case]
            names = {step.student for step in steps if step.student is not None}
            problem = ours.create_problem(case, sorted(names))
        say(
            f"{case.name}, {group.step.name}: {case.precision}, "
            f"M = {case.num_members}, batch {case.batch_size}"
        )
        rows = measure(group, problem, settings, peer, rates[case.precision], say)
        peaks = {precision: rate._asdict() for precision, rate in rates.items()}
        yield rows, {**metadata, "peak_flops_per_second": peaks}


def measure(
    group: Group,
    problem: ours.Problem,
    settings: Settings,
    peer: types.ModuleType | None,
    rates: Rates,
    say: Callable[[str], None],
) -> list[Row]:
    """The rows of one group.

    A contender that cannot be built or run (for want of memory, say) gets a row
    with `error`, and the others are measured.
    """
    contenders, rows = [], []
    for labels, make in _makers(group.step, problem, settings, peer):
        try:
            contenders.append(make())
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            say(f"  {' '.join(labels.values())} failed: {text}")
            rows.append({**describe(group), **labels, "error": text})
    before = neighbours.usage()
    rounds = timing.alternate(contenders, settings.budget)
    others = neighbours.other_cpus(before, neighbours.usage())
    if others is not None and others > _BUSY:
        say(
            f"  Other work kept {others:.1f} cores busy meanwhile; contenders suffer "
            "from that unequally, and these numbers are not worth quoting."
        )
    flops = ours.flops(problem, group.step)
    for contender, seconds in zip(contenders, rounds, strict=True):
        facts = {k: v for k, v in contender.facts.items() if v is not None}
        row = {**describe(group), **contender.labels, **facts, "flops": flops}
        if others is not None:
            row["other_cpus"] = others
        row |= timing.summarise(seconds, group.case.batch_size)
        row |= shares(flops / row["seconds_per_step"], rates)
        rows.append(row)
    return add_ratios(rows)


def _makers(
    step: Step,
    problem: ours.Problem,
    settings: Settings,
    peer: types.ModuleType | None,
) -> Iterator[tuple[Row, Callable[[], timing.Contender]]]:
    """Of every contender its labels, and what makes it."""
    strategies = settings.strategies if step.uses_all_members else ()
    for strategy in strategies or settings.strategies[:1]:
        yield (
            {"contender": "edp", "strategy": strategy},
            functools.partial(
                ours.create_contender, problem, step, strategy, settings.steps_per_call
            ),
        )
    for mode in settings.peers if peer is not None else ():
        name = "pytorch" if mode == "eager" else f"pytorch-{mode}"
        make = functools.partial(peer.create_contender, problem, step, mode)
        yield {"contender": name}, make


def describe(group: Group) -> Row:
    """What a row was measured on."""
    case = group.case
    return {
        "case": case.name,
        "what": group.step.name,
        "backend": jax.default_backend(),
        "num_members": case.num_members,
        "batch_size": case.batch_size,
        "precision": case.precision,
    }


def shares(flops_per_second: float, rates: Rates) -> Row:
    """`mfu`, of the large product's rate, and `conv_utilisation`, where measured."""
    row = {"mfu": flops_per_second / rates.matmul}
    if rates.convolution is not None:
        row["conv_utilisation"] = flops_per_second / rates.convolution
    return row


def add_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows of one group with `ratio_to_peer`: above 1 is faster than the peer.

    The peer is the fastest one measured. The ratio is the median over rounds of
    the ratio within a round, which drifts of the machine leave alone; so it may
    differ a little from that of the medians. Without a peer there is none.
    """
    peers = [
        row
        for row in rows
        if row["contender"].startswith("pytorch") and "seconds_per_step" in row
    ]
    if not peers:
        return list(rows)
    fastest = min(peers, key=lambda row: row["seconds_per_step"])
    reference = fastest["round_seconds_per_step"]
    return [
        {**row, "ratio_to_peer": timing.ratio(row["round_seconds_per_step"], reference)}
        if "seconds_per_step" in row
        else row
        for row in rows
    ]


def _cpu_model() -> str:
    """As 'Intel(R) Xeon(R) Processor', where the system tells."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
