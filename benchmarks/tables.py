"""Writes measurements: `benchmark.json`, `machine.json` and Markdown tables."""

import pathlib
from collections.abc import Sequence
from typing import Any

from edp.runtime import storage

Row = dict[str, Any]

_SUFFIXES = ("json", "md")

_NOTES = """\
An image is one training image of the batch, however many members read it; for
teachers, each member's batch counts once. "× peer" compares with the fastest peer
measured, "× eager" and "× compile" with that mode of it, "× xla" with edp without its
native kernels; all within rounds: above 1 is faster. MFU is the FLOP/s of the step over
those of a large matrix product measured on the same device; "of conv" is over its best
forward convolution. "other CPUs" is the number of cores that other processes used in
the worst round kept; "repeated" is the number of rounds that were measured again
because of them. Times contain no compilation."""


def _number(value: float) -> str:
    """Formats three significant digits without exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _per_cent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _spread(row: Row) -> str:
    values = (row["seconds_per_step"], row["seconds_per_step_min"])
    median, least, most = (
        _number(1000 * value) for value in (*values, row["seconds_per_step_max"])
    )
    return f"{median} [{least}–{most}]"


def _ratios(*names: str):
    """Returns the columns that compare with the references `names`."""
    for name in names:
        key = f"ratio_to_{name}"
        yield f"× {name}", key, lambda r, key=key: _number(r[key])


# Heading, required key of the row, and format.
_COLUMNS = (
    ("case", "case", lambda r: r["case"]),
    ("what", "what", lambda r: r["what"]),
    ("M", "num_members", lambda r: str(r["num_members"])),
    ("batch", "batch_size", lambda r: str(r["batch_size"])),
    ("precision", "precision", lambda r: r["precision"]),
    ("contender", "contender", lambda r: contender_name(r)),
    ("images/s", "images_per_second", lambda r: _number(r["images_per_second"])),
    ("× peer", "ratio_to_peer", lambda r: _number(r["ratio_to_peer"])),
    *_ratios("eager", "compile", "cudagraphs", "xla"),
    ("ms/step [min–max]", "seconds_per_step", _spread),
    ("MFU", "mfu", lambda r: _per_cent(r["mfu"])),
    ("of conv", "conv_utilisation", lambda r: _per_cent(r["conv_utilisation"])),
    ("peak MiB", "peak_bytes", lambda r: _number(r["peak_bytes"] / 2**20)),
    ("other CPUs", "other_cpus", lambda r: f"{r['other_cpus']:.2f}"),
    ("repeated", "rounds_repeated", lambda r: str(r["rounds_repeated"])),
    ("compile s", "compile_seconds", lambda r: _number(r["compile_seconds"])),
)


def contender_name(row: Row) -> str:
    """Returns a contender's name: 'edp (unroll)', 'edp without native (unroll)'."""
    name, strategy = row["contender"], row.get("strategy")
    if row.get("kernels") == "xla" and row.get("backend") == "cpu":
        name += " without native"
    return f"{name} ({strategy})" if strategy else name


def format_table(rows: Sequence[Row], columns=_COLUMNS) -> str:
    """Formats rows as a Markdown table, without empty columns."""

    def has(row: Row, key: str) -> bool:
        return row.get(key) is not None

    columns = [column for column in columns if any(has(row, column[1]) for row in rows)]
    cells = [[heading for heading, _, _ in columns]]
    for row in rows:
        cells.append([show(row) if has(row, key) else "" for _, key, show in columns])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        )
        + " |"
        for line in cells
    )


def describe(row: Row) -> str:
    """Formats one contender's result as a line."""
    if "error" in row:
        return f"{contender_name(row)}: failed, {row['error']}"
    line = f"{contender_name(row)}: {_number(row['images_per_second'])} images/s"
    if row.get("ratio_to_peer") is not None:
        line += f", {_number(row['ratio_to_peer'])} times the peer"
    return f"{line}, {_per_cent(row['mfu'])} of the matrix-product peak"


def format_document(metadata: Row, rows: Sequence[Row]) -> str:
    """Formats the contents of `benchmark.md`."""
    lines = ["# Benchmark", "", format_table(rows), "", _NOTES, ""]
    failed = [row for row in rows if "error" in row]
    lines += [f"- {row['case']}, {row['what']}: {describe(row)}" for row in failed]
    disturbed = [f"{r['case']}, {r['what']}" for r in rows if r.get("disturbed")]
    lines += [
        f"- {group}: disturbed by other processes, unreliable"
        for group in dict.fromkeys(disturbed)
    ]
    lines += [""] if failed or disturbed else []
    peaks = metadata["peak_flops_per_second"]
    for precision, rates in peaks.items():
        shown = ", ".join(
            f"{name} {_number(rate / 1e9)} GFLOP/s"
            for name, rate in rates.items()
            if rate is not None
        )
        lines.append(f"- measured peak, {precision}: {shown}")
    plain = {k: v for k, v in metadata.items() if k != "peak_flops_per_second"}
    lines += [f"- {key}: {value}" for key, value in plain.items()]
    return "\n".join(lines) + "\n"


# Keys of every row; values may be null.
_KEYS = ("case", "what", "backend", "images_per_second", "ratio_to_peer")
_KEYS += ("mfu", "peak_bytes")


def write(directory: pathlib.Path, metadata: Row, rows: Sequence[Row]) -> None:
    """Writes `benchmark.json` (the rows), `machine.json` and `benchmark.md`."""
    rows = [{**dict.fromkeys(_KEYS), **row} for row in rows]
    storage.write_json(directory / "benchmark.json", rows)
    storage.write_json(directory / "machine.json", metadata)
    storage.write_text(directory / "benchmark.md", format_document(metadata, rows))


_CAPACITY = (
    ("case", "case", lambda r: r["case"]),
    ("what", "what", lambda r: r["what"]),
    ("M", "num_members", lambda r: str(r["num_members"])),
    ("way", "way", lambda r: r["way"]),
    ("largest batch", "largest_batch", lambda r: str(r["largest_batch"])),
    ("GiB", "peak_bytes", lambda r: _number(r["peak_bytes"] / 2**30)),
)


def write_capacity(directory: pathlib.Path, rows: Sequence[Row]) -> str:
    """Writes `capacity.json` and `capacity.md`; returns the table."""
    table = format_table(rows, _CAPACITY)
    storage.write_json(directory / "capacity.json", list(rows))
    storage.write_text(directory / "capacity.md", table + "\n")
    return table


def set_aside(directory: pathlib.Path, stems: Sequence[str]) -> None:
    """Renames an earlier measurement's files, as `benchmark.1.json`, to keep them."""
    names = [directory / f"{stem}.{suffix}" for stem in stems for suffix in _SUFFIXES]
    if not any(path.exists() for path in names):
        return
    number = 1
    while any(path.with_suffix(f".{number}{path.suffix}").exists() for path in names):
        number += 1
    for path in names:
        if path.exists():
            path.rename(path.with_suffix(f".{number}{path.suffix}"))
