"""The files of a run: stages that are complete, and what they were made with.

Of several processes the first one writes, and the others write nothing; all of
them must see the same directory.
"""

import os
import pathlib
import platform
from importlib import metadata
from typing import Any

from edp import __version__
from edp.errors import InputError
from edp.runtime import multihost, storage

SCHEMA_VERSION = 1
# The packages that decide which numbers a run computes.
_COMPUTING = ("edp", "jax", "flax", "optax", "numpy")


def check_version(path: pathlib.Path) -> None:
    """Checks that this version of the code can go on with a workdir, if it is one.

    A warning tells where it was begun with other versions of what computes.

    Raises:
      InputError: if it was begun with a version that keeps its files otherwise.
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
            f"{path} was begun with {began} and goes on with {goes_on}: what is "
            "complete is kept as it is, what is computed now may differ in its last "
            "digits"
        )


def versions() -> dict[str, str]:
    """Those of this code and of what it computes with, by name."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {"edp": __version__} | {name: metadata.version(name) for name in names}


def run_facts() -> dict[str, Any]:
    """Versions and hardware of this process, for `run.json`."""
    import jax

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
    }
