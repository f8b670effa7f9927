"""The files of a run: stages that are complete, and what they were made with.

Of several processes the first one writes, and the others write nothing; all of
them must see the same directory.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from edp import __version__, lock, paths, processes
from edp.errors import InputError

SCHEMA_VERSION = 1

# What the record of every completed stage has.
_RECORDED = {"id", "num_params", "train_seconds"}
# The packages that decide which numbers a run computes.
_COMPUTING = ("edp", "jax", "flax", "optax", "numpy")


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
        with _naming(path), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Has errors tell the file where, as of a full disk, the system does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


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


def read_mapping(path: pathlib.Path) -> dict[str, Any]:
    """`read_json` of an object; InputError where it is something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: a mapping is expected in it")
    return value


def append_line(path: pathlib.Path, line: str) -> None:
    """Adds a line to a file that may not be there yet."""
    if processes.is_first():
        with _naming(path):
            paths.append(path, line + "\n")


def read_record(stage: pathlib.Path) -> dict[str, Any] | None:
    """What `Stage.complete` stored in a stage's directory, or None before that.

    As process 0 finds it, lest processes go different ways.
    """
    path = stage / "complete.json"
    record = read_mapping(path) if path.exists() else None
    if record is not None:
        what = ", ".join(sorted(_RECORDED - record.keys()))
        what = what and f"{what} is missing"
        # One of an older version of this code has no sum.
        if "sum" in record and record["sum"] != _sum(record):
            what = "it has changed since it was written"
        if what:
            raise InputError(
                f"{path} is damaged: {what}; remove it to have the stage completed "
                "again from its last checkpoint"
            )
    return processes.from_first(record)


def _sum(record: Mapping[str, Any]) -> str:
    own = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


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
        self._refuse_others()

    def _refuse_others(self) -> None:
        if self._settings_path.exists():
            stored = read_mapping(self._settings_path)
            refuse_other_settings(self.path, stored, self.settings)

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

    @contextlib.contextmanager
    def making(self) -> Iterator[bool]:
        """While open, no other run makes this stage; whether it is still to be made.

        Raises:
          InputError: if another run is making it, or has begun it just now with other
            settings.
        """
        with contextlib.nullcontext() if self.record else lock.held(self.path):
            # Another run may have begun, or made, it just now.
            self._refuse_others()
            yield self.record is None

    def complete(self, record: Mapping[str, Any]) -> None:
        """Marks the stage complete; nothing of it is run again.

        The record gets an `id` of its own, by which what is derived from the
        stage can tell that it was trained anew, and a `sum` that shows damage.
        """
        record = {**record, "id": uuid.uuid4().hex}
        record = {**record, "sum": _sum(record)}
        write_json(self.path / "complete.json", record)


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


def check_version(path: pathlib.Path) -> None:
    """Checks that this version of the code can go on with a workdir, if it is one.

    A warning tells where it was begun with other versions of what computes.

    Raises:
      InputError: if it was begun with a version that keeps its files otherwise.
    """
    if not (path / "run.json").exists():
        return
    facts = read_mapping(path / "run.json")
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
        processes.warn(
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
