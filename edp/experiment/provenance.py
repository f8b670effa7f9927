"""Provenance of a run: the versions and the hardware that it was begun with."""

import os
import pathlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from edp import __version__
from edp.errors import InputError
from edp.runtime import multihost, storage

SCHEMA_VERSION = 1
# The packages that determine the numbers of a run.
_COMPUTING = ("edp", "jax", "flax", "optax", "numpy")
# The CPU features that decide which instructions the compilers emit.
_FEATURES = ("avx2", "avx512_bf16", "avx512f", "fma")
# The facts of `run.json` that decide the rounding.
_ARITHMETIC = ("backend", "kernels", "cpu_features", "available_cores")
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# Files that a run writes into its workdir, in place of earlier ones of these names.
_REPLACED = (
    *("config.json", "results.json", "results.md", "report.html", "measures.json"),
    *("analysis.json", "gallery.npz", "ood.json", "corruptions.json"),
    "predictions",
)


def check_workdir(path: pathlib.Path) -> None:
    """Checks that a directory in which no run was begun holds nothing to be replaced.

    Raises:
      InputError: if it has files of the names that a run writes; names them.
    """
    own = ("run.json", "teachers/settings.json", "predictions/made_from.json")
    if any((path / name).exists() for name in own) or _is_config(path / "config.json"):
        return
    found = [name for name in _REPLACED if (path / name).exists()]
    if found:
        raise InputError(
            f"workdir={str(path)!r} is not that of a run, and holds "
            f"{', '.join(found)}, which a run would replace; accepted: the workdir of "
            "a run, or a new directory"
        )


def _is_config(path: pathlib.Path) -> bool:
    """Returns whether a file is the `config.json` of a run, perhaps one just begun."""
    try:
        found = storage.read_mapping(path)
    except (InputError, OSError):
        return False
    return found.keys() >= {"data", "teachers", "students"}


def check_version(path: pathlib.Path) -> None:
    """Checks that this version of the code can continue a workdir, if it holds a run.

    Warns where the run was begun with other versions of the packages that compute.

    Raises:
      InputError: if it was begun with a version of another file format.
    """
    if not (path / "run.json").exists():
        return
    facts = storage.read_mapping(path / "run.json")
    schema = facts.get("schema_version")
    if schema != SCHEMA_VERSION:
        raise InputError(
            f"{path} was begun with edp {facts.get('edp')}, whose files are of "
            f"schema_version={schema!r}; accepted by edp {__version__}: "
            f"{SCHEMA_VERSION}. Use that version, or give another workdir"
        )
    now = versions()
    others = [key for key in _COMPUTING if facts.get(key) not in (None, now[key])]
    if others:
        began = ", ".join(f"{key} {facts[key]}" for key in others)
        goes_on = ", ".join(f"{key} {now[key]}" for key in others)
        multihost.warn(
            f"{path} was begun with {began} and goes on with {goes_on}: completed "
            "stages are kept; what is computed now may differ in its last digits"
        )


def check_hardware(path: pathlib.Path) -> None:
    """Warns if a run continues, or has continued, on other hardware or kernels.

    Compares the backend and, on a CPU, the kernels, the CPU's features and the number
    of available cores: they decide the order of additions. A key that `run.json` lacks
    is not compared.

    Args:
      path: the workdir; one without `run.json` passes.
    """
    if not (path / "run.json").exists():
        return
    began = storage.read_mapping(path / "run.json")
    earlier = [("has continued", facts) for facts in began.get("continued_with", [])]
    for verb, facts in [("continues", run_facts()), *earlier]:
        if differs := _differences(began, facts):
            multihost.warn(
                f"{path} was begun with {', '.join(differs)} and {verb} with "
                f"{', '.join(differs.values())}: results are not bit-identical to "
                "those of an uninterrupted run"
            )
            return


def record(path: pathlib.Path) -> None:
    """Writes `run.json` of a new run; adds to it other hardware of one that continues.

    `continued_with` in `run.json` lists what `check_hardware` compares, once for each
    hardware other than that of the beginning.

    Args:
      path: the workdir.
    """
    facts = run_facts()
    if not (path / "run.json").exists():
        storage.write_json(path / "run.json", facts)
        return
    began = storage.read_mapping(path / "run.json")
    now = {key: facts[key] for key in _ARITHMETIC}
    earlier = began.get("continued_with", [])
    if _differences(began, now) and now not in earlier:
        storage.write_json(
            path / "run.json", {**began, "continued_with": [*earlier, now]}
        )


def _differences(began: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Returns, as texts, what decided the rounding at the beginning -> elsewhere."""
    before, after = _arithmetic(began), _arithmetic(other)
    return {
        before[key]: after[key]
        for key in after
        if key in before and before[key] != after[key]
    }


def _arithmetic(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns what decides a run's rounding, as texts; omits what `facts` lacks."""
    texts = {"backend": f"backend {facts['backend']}"} if "backend" in facts else {}
    if facts.get("backend") != "cpu":
        return texts
    # Runs without this fact were begun before there were kernels of our own.
    if kernels := facts.get("kernels", {"kernels": "xla"}):
        built = (kernels.get(key) for key in ("kernels", "instructions", "compiler"))
        texts["kernels"] = f"kernels {' '.join(filter(None, built))}"
    if "cpu_features" in facts:
        texts["features"] = f"CPU features {' '.join(facts['cpu_features']) or 'none'}"
    if cores := facts.get("available_cores"):
        texts["cores"] = f"{cores} available core{'s' if cores > 1 else ''}"
    return texts


def versions() -> dict[str, str]:
    """Returns by name the versions of this code and of the packages that compute."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {"edp": __version__} | {name: metadata.version(name) for name in names}


def run_facts() -> dict[str, Any]:
    """Returns the versions, hardware and kernels of this process, for `run.json`."""
    import jax  # inside, as reports are drawn without JAX

    from edp.models import native

    devices = jax.devices()
    return {
        "schema_version": SCHEMA_VERSION,
        **versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "cpu_count": os.cpu_count(),
        **_cpu_facts(),
        "kernels": native.status(),
    }


def _cpu_facts() -> dict[str, Any]:
    """Returns the CPU's model, its features and the cores this process may use."""
    info: dict[str, str] = {}
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    flags = info.get("flags", "").split()
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cpu_features": [name for name in _FEATURES if name in flags],
        "available_cores": len(affinity(0)) if affinity else os.cpu_count(),
    }
