"""Facts about a run as short texts."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from edp.report.rows import Row, ensemble_rows

_SOFTWARE = ("edp", "python", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_run(rows: Sequence[Row], config: Mapping, run: Mapping) -> dict[str, str]:
    """Returns short texts by heading; leaves out what is unknown.

    Args:
      rows: rows of `results.json`.
      config: `config.json`, or empty.
      run: `run.json`, or empty.
    """
    members = [m for row in ensemble_rows(rows) if (m := row.get("num_members"))]
    seeds = dict.fromkeys(str(row["seed"]) for row in rows if "seed" in row)
    software = [f"{name} {run[name]}" for name in _SOFTWARE if name in run]
    facts = {
        "Dataset": _dataset(_section(config, "data")),
        "Model": _model(_section(config, "model")),
        "Members": str(max(members, default="")),
        "Seed": str(config.get("seed", ", ".join(seeds))),
        "Software": ", ".join(software),
        "Hardware": _hardware(run),
    }
    return {heading: text for heading, text in facts.items() if text}


def unfinished_students(rows: Sequence[Row], config: Mapping) -> list[str]:
    """Returns the configured students that have no row."""
    known = {row.get("model") for row in rows}
    return [name for name in _section(config, "students") if name not in known]


def _section(config: Mapping, name: str) -> Mapping:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _dataset(data: Mapping[str, Any]) -> str:
    source = str(data.get("source") or "")
    if source == "tfds":
        return str(data.get("name") or source)
    if source in ("folder", "npz"):
        return pathlib.PurePath(str(data.get("path") or "")).name or source
    return source


def _model(model: Mapping[str, Any]) -> str:
    """Formats as "wide_resnet, depth 28, widen_factor 10"; skips None."""
    settings = [f"{k} {v}" for k, v in model.items() if k != "name" and v is not None]
    return ", ".join(filter(None, [str(model.get("name") or ""), *settings]))


def _hardware(run: Mapping[str, Any]) -> str:
    """Formats as "gpu (8 × NVIDIA H100, 64 CPU cores), 2 processes, Linux-6.1"."""
    backend, devices = str(run.get("backend") or ""), str(run.get("device") or "")
    if (num_devices := run.get("num_devices", 1)) != 1:
        devices = f"{num_devices} × {devices}"
    inside = [devices] if devices != backend else []
    if cores := run.get("cpu_count"):
        inside.append(f"{cores} {'cores' if backend == 'cpu' else 'CPU cores'}")
    parts = [f"{backend} ({', '.join(inside)})" if inside else backend]
    if (num_processes := run.get("num_processes", 1)) != 1:
        parts.append(f"{num_processes} processes")
    parts.append(str(run.get("platform") or ""))
    return ", ".join(filter(None, parts))
