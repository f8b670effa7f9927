"""Measures groups of contenders and returns rows of results."""

import contextlib
import importlib
import pathlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks import isolated, limits, ours, tables, timing
from benchmarks.cases import Group
from benchmarks.isolated import Recipe
from edp.errors import InputError
from edp.experiment import provenance

PEERS = ("eager", "compile", "cudagraphs")
Row = dict[str, Any]
Start = Callable[[Recipe], contextlib.AbstractContextManager[timing.Contender]]


class Settings(NamedTuple):
    """Contenders and measuring time.

    Attributes:
      strategies: names in `ensemble.STRATEGIES`; steps with one member are measured
        with the first one only.
      peers: names in `PEERS`; empty: edp only.
      budget: see `timing.Budget`.
      steps_per_call: for edp; see `ours.create_contender`.
      kernels: names in `isolated.KERNELS`; edp is timed with each.
    """

    strategies: tuple[str, ...]
    peers: tuple[str, ...]
    budget: timing.Budget
    steps_per_call: int = 1
    kernels: tuple[str, ...] = ("own",)


class Rates(NamedTuple):
    """Measured peaks in FLOP/s; see `limits`."""

    matmul: float
    convolution: float | None  # on CPU only


def find_peer():
    """Returns the module `peer`.

    Raises:
      InputError: if PyTorch, or its support for this device, is missing.
    """
    try:
        peer = importlib.import_module("benchmarks.peer")
    except (ImportError, OSError) as error:  # OSError: from a shared library
        raise InputError(f"PyTorch cannot be imported ({error})") from error
    peer.find_device()
    return peer


def measure_rates(precision: str) -> Rates:
    """Measures the device's peaks in one precision."""
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
    """Runs `run` and writes its rows as they come; keeps earlier files."""
    tables.set_aside(directory, ["benchmark", "machine"])
    rows: list[Row] = []
    for new, metadata in run(groups, settings, command, say):
        rows += new
        tables.write(directory, metadata, rows)  # each time, to lose nothing
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
      groups: the groups to measure.
      settings: see `Settings`.
      command: the arguments of the command, for the record.
      say: prints a line of progress.

    Yields:
      After each group: its rows, and the metadata of all groups so far.
    """
    metadata = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["python", "-m", "benchmarks", *command]),
        **provenance.run_facts(),
    }
    if settings.peers:
        try:
            metadata |= find_peer().versions()
        except InputError as error:
            say(f"{error}: timing this project alone, without ratios.")
            settings = settings._replace(peers=())
    rates: dict[str, Rates] = {}
    for group in groups:
        case = group.case
        if case.precision not in rates:
            rates[case.precision] = measure_rates(case.precision)
        say(
            f"{case.name}, {group.step.name}: {case.precision}, "
            f"M = {case.num_members}, batch {case.batch_size}"
        )
        rows = measure(group, settings, rates[case.precision], say)
        peaks = {precision: rate._asdict() for precision, rate in rates.items()}
        yield rows, {**metadata, "peak_flops_per_second": peaks}


def measure(
    group: Group,
    settings: Settings,
    rates: Rates,
    say: Callable[[str], None],
    start: Start = isolated.started,
) -> list[Row]:
    """Measures one group and returns its rows.

    A contender that cannot be built or run (for example, out of memory) gets a row with
    `error`; the others are measured.
    """
    contenders, rows = [], []
    with contextlib.ExitStack() as running:
        for labels, recipe in _recipes(group, settings):
            try:
                contenders.append(running.enter_context(start(recipe)))
            except Exception as error:
                text = " ".join(str(error).split())[:300]
                say(f"  {' '.join(labels.values())} failed: {text}")
                rows.append({**describe(group), **labels, "error": text})
        try:
            rounds, repeated = timing.alternate(contenders, settings.budget)
        except (isolated.Failed, timing.NotFinite) as error:
            say(f"  {error}: this step has no times")
            failed = {**describe(group), "error": f"not timed: {error}"}
            return rows + [{**failed, **contender.labels} for contender in contenders]
    others = [r.other_cpus for r in rounds if r.other_cpus is not None]
    disturbed = bool(others) and max(others) > settings.budget.other_cpus
    if disturbed:
        say(
            f"  Other processes kept {max(others):.1f} cores busy in a round, after "
            f"{repeated} repeated; they slow contenders down unequally, so these "
            "numbers are unreliable."
        )
    flops = ours.flops(group.case, group.step)
    for index, contender in enumerate(contenders):
        seconds = [one.seconds[index] for one in rounds]
        facts = {k: v for k, v in contender.facts.items() if v is not None}
        row = {**describe(group), **contender.labels, **facts, "flops": flops}
        if others:
            row |= {"other_cpus": max(others), "rounds_repeated": repeated}
            row["disturbed"] = disturbed
        row |= timing.summarise(seconds, group.case.batch_size)
        row |= shares(flops / row["seconds_per_step"], rates)
        rows.append(row)
    return add_ratios(rows)


def _recipes(group: Group, settings: Settings) -> Iterator[tuple[Row, Recipe]]:
    """Returns the labels and the recipe of every contender."""
    strategies = settings.strategies if group.step.uses_all_members else ()
    for strategy in strategies or settings.strategies[:1]:
        for kernels in settings.kernels:
            name = {"own": "native"}.get(kernels, kernels)  # as `native.status` has it
            labels = {"contender": "edp", "strategy": strategy, "kernels": name}
            steps = settings.steps_per_call
            yield labels, Recipe(*group, strategy, None, steps, kernels)
    for mode in settings.peers:
        name = "pytorch" if mode == "eager" else f"pytorch-{mode}"
        yield {"contender": name}, Recipe(*group, peer_mode=mode)


def describe(group: Group) -> Row:
    """Returns the facts of the case and step of a row."""
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
    """Returns `mfu` (share of the matmul peak) and `conv_utilisation`, if measured."""
    row = {"mfu": flops_per_second / rates.matmul}
    if rates.convolution is not None:
        row["conv_utilisation"] = flops_per_second / rates.convolution
    return row


def add_ratios(rows: Sequence[Row]) -> list[Row]:
    """Adds to the rows of one group how many times faster they are than others.

    `ratio_to_peer` compares with the fastest peer measured. Of several peers
    `ratio_to_eager`, `ratio_to_compile` and `ratio_to_cudagraphs` compare with each,
    and `ratio_to_xla` compares edp with the same strategy under XLA's kernels. A
    ratio is the median over rounds of the ratio within a round, which cancels the
    machine's drift; so it may differ a little from the ratio of the medians.

    Returns:
      The rows; those without times unchanged, and no ratio without a reference.
    """
    timed = [row for row in rows if "seconds_per_step" in row]
    peers = {
        row["contender"].removeprefix("pytorch").removeprefix("-") or "eager": row
        for row in timed
        if row["contender"].startswith("pytorch")
    }
    references = {f"ratio_to_{m}": row for m, row in peers.items() if len(peers) > 1}
    if peers:
        fastest = min(peers.values(), key=lambda row: row["seconds_per_step"])
        references["ratio_to_peer"] = fastest
    without = {r["strategy"]: r for r in timed if r.get("kernels") == "xla"}

    def ratios(row: Row) -> Row:
        others = dict(references)
        if row.get("kernels") == "native" and row["strategy"] in without:
            others["ratio_to_xla"] = without[row["strategy"]]
        key = "round_seconds_per_step"
        return {k: timing.ratio(row[key], other[key]) for k, other in others.items()}

    return [
        {**row, **ratios(row)} if "seconds_per_step" in row else row for row in rows
    ]
