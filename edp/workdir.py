"""The files of a run: stages that are complete, and what they were made with.

Of several processes the first one writes, and the others write nothing; all of
them must see the same directory.
"""

import json
import os
import pathlib
import platform
import uuid
from collections.abc import Mapping
from typing import Any

from edp import paths, processes
from edp.errors import InputError

SCHEMA_VERSION = 1


def write_bytes(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a whole file or nothing: to a temporary one, then renamed."""
    if not processes.is_first():
        return
    if paths.is_remote(path):
        path.write_bytes(bytes(data))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened by name: `tempfile` makes files that no other user may read.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN is an error, as JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file; InputError with its path where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


def append_line(path: pathlib.Path, line: str) -> None:
    """Adds a line to a file that may not be there yet."""
    if processes.is_first():
        paths.append(path, line + "\n")


def read_record(stage: pathlib.Path) -> dict[str, Any] | None:
    """What `Stage.complete` stored in a stage's directory, or None before that.

    As process 0 finds it, lest processes go different ways.
    """
    path = stage / "complete.json"
    return processes.from_first(read_json(path) if path.exists() else None)


def check_writable(path: pathlib.Path, setting: str = "workdir") -> None:
    """Checks, without writing, that `path` is or can become a directory to write to.

    Args:
      path: the directory.
      setting: what it was given as.

    Raises:
      InputError: if not.
    """
    if paths.is_remote(path):
        paths.check_reachable(path, setting)
        return
    nearest = path.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        why = f"{nearest} is not a directory"
    elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        why = f"no permission to write to {nearest}"
    else:
        return
    raise InputError(f"{setting}={str(path)!r} cannot be used: {why}")


class Stage:
    """One stage's directory: what it was made with, and whether it is complete.

    `settings.json` holds exactly the settings that the stage depends on; a stage
    begun with some is never continued with others.
    """

    def __init__(self, path: pathlib.Path, settings: Mapping[str, Any]):
        """Opens the stage and writes nothing.

        Raises:
          InputError: if it was begun with other settings; names them.
        """
        self.path = path
        # Through JSON, so that tuples compare equal to what is read back.
        self.settings = json.loads(json.dumps(settings))
        if self._settings_path.exists():
            refuse_other_settings(path, read_json(self._settings_path), self.settings)

    def begin(self) -> None:
        """Records the settings; from now on no others are accepted."""
        if not self._settings_path.exists():
            write_json(self._settings_path, self.settings)

    @property
    def _settings_path(self) -> pathlib.Path:
        return self.path / "settings.json"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def variables(self) -> pathlib.Path:
        """The finished variables, which later stages read."""
        return self.path / "variables"

    @property
    def log(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def record(self) -> dict[str, Any] | None:
        """What `complete` stored, or None while the stage is not complete."""
        return read_record(self.path)

    def complete(self, record: Mapping[str, Any]) -> None:
        """Marks the stage complete; nothing of it is run again.

        The record gets an `id` of its own, by which what is derived from the
        stage can tell that it was trained anew.
        """
        write_json(self.path / "complete.json", {**record, "id": uuid.uuid4().hex})


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def different_settings(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """By dotted name, the two values of settings that differ; None if absent."""
    stored, wanted = _flatten(stored), _flatten(wanted)
    missing = object()
    return {
        key: (stored.get(key), wanted.get(key))
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key, missing) != wanted.get(key, missing)
    }


def refuse_other_settings(
    path: pathlib.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raises an InputError that names the settings in which the two differ."""
    differences = [
        f"{key} was {old!r} and is now {new!r}"
        for key, (old, new) in different_settings(stored, wanted).items()
    ]
    if differences:
        raise InputError(
            f"{path} was made with other settings ({'; '.join(differences)}); "
            "go back to those, or give another workdir"
        )


def run_facts() -> dict[str, Any]:
    """Versions and hardware of this process, for `run.json`."""
    import flax
    import jax
    import numpy
    import optax
    import orbax.checkpoint

    from edp import __version__

    devices = jax.devices()
    return {
        "schema_version": SCHEMA_VERSION,
        "edp": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "orbax-checkpoint": orbax.checkpoint.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "cpu_count": os.cpu_count(),
    }
