"""The files of a run: stages that are complete, and what they were made with.

Of several processes the first one writes, and the others write nothing; all of
them must see the same directory.
"""

import contextlib
import hashlib
import json
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from edp.errors import InputError
from edp.runtime import lock, multihost, storage

# What the record of every completed stage has.
_RECORDED = {"id", "num_params", "train_seconds"}


def read_record(stage: pathlib.Path) -> dict[str, Any] | None:
    """What `Stage.complete` stored in a stage's directory, or None before that.

    As process 0 finds it, lest processes go different ways.
    """
    path = stage / "complete.json"
    record = storage.read_mapping(path) if path.exists() else None
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
    return multihost.from_first(record)


def _sum(record: Mapping[str, Any]) -> str:
    own = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


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
            stored = storage.read_mapping(self._settings_path)
            refuse_other_settings(self.path, stored, self.settings)

    def begin(self) -> None:
        """Records the settings; from now on no others are accepted."""
        if not self._settings_path.exists():
            storage.write_json(self._settings_path, self.settings)

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
        storage.write_json(self.path / "complete.json", record)


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
