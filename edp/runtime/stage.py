"""Stages of a run: their directories, settings and completion.

Process 0 writes; the others write nothing, but must see the same directory.
"""

import contextlib
import hashlib
import json
import pathlib
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from edp.errors import InputError
from edp.runtime import lock, multihost, storage

# Keys in the record of every complete stage.
_REQUIRED = {"id", "num_params", "train_seconds"}
# What a stage replaces or moves aside in its directory.
_REPLACED = ("checkpoints", "damaged", "variables", "metrics.jsonl", "start.json")
# Settings that stages depended on once: digests identify the data, not their path.
_FORMER = re.compile(r"(from\.)*data\.path")


def read_record(stage: pathlib.Path) -> dict[str, Any] | None:
    """Reads the record of `Stage.complete` in a stage's directory; None before that.

    Returns process 0's record in all processes, so that they agree.

    Raises:
      InputError: if the record is damaged.
    """
    path = stage / "complete.json"
    record = storage.read_mapping(path) if path.exists() else None
    if record is not None:
        what = ", ".join(sorted(_REQUIRED - record.keys()))
        what = what and f"{what} is missing"
        # Older versions of this code wrote no checksum.
        if "sum" in record and record["sum"] != _checksum(record):
            what = "it has changed since it was written"
        if what:
            raise InputError(
                f"{path} is damaged: {what}; remove it to complete the stage again "
                "from its last checkpoint"
            )
    return multihost.from_first(record)


def _checksum(record: Mapping[str, Any]) -> str:
    own = {key: value for key, value in record.items() if key != "sum"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


class Stage:
    """Directory of one stage: its settings, and whether it is complete.

    `settings.json` holds exactly the settings that the stage depends on; a stage is
    never resumed with other settings.
    """

    def __init__(
        self,
        path: pathlib.Path,
        settings: Mapping[str, Any],
        advice: Mapping[str, str] | None = None,
    ):
        """Opens the stage; writes nothing.

        Args:
          path: its directory.
          settings: what it depends on.
          advice: by section, what to do if only settings of this section differ.

        Raises:
          InputError: if the stage was begun with other settings, which it names; or was
            not begun, and its directory holds files of the names that it replaces.
        """
        self.path = path
        # Through JSON, so that tuples compare equal to the lists read back.
        self.settings = json.loads(json.dumps(settings))
        self._advice = advice or {}
        self._refuse_others()

    def _refuse_others(self) -> None:
        if self._settings_path.exists():
            stored = storage.read_mapping(self._settings_path)
            refuse_other_settings(self.path, stored, self.settings, self._advice)
            return
        found = [name for name in _REPLACED if (self.path / name).exists()]
        if found:
            raise InputError(
                f"{self.path} has no settings.json, but {', '.join(found)}, which a "
                "training there would replace; accepted: a directory without them, or "
                "that of a training begun there"
            )

    def begin(self) -> None:
        """Writes the settings; from then on no others are accepted."""
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
        """Directory of the finished variables, which later stages read."""
        return self.path / "variables"

    @property
    def log(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of `complete`; None while the stage is incomplete."""
        return read_record(self.path)

    @contextlib.contextmanager
    def making(self) -> Iterator[bool]:
        """Locks the stage against other runs; yields whether it is incomplete.

        Raises:
          InputError: if another run holds the lock, or has begun the stage meanwhile
            with other settings.
        """
        with contextlib.nullcontext() if self.record else lock.held(self.path):
            # Another run may have begun or completed it meanwhile.
            self._refuse_others()
            yield self.record is None

    def complete(self, record: Mapping[str, Any]) -> None:
        """Marks the stage complete; it is not run again.

        Adds to the record a unique `id`, by which dependent results detect that the
        stage was retrained, and `sum`, a checksum.
        """
        record = {**record, "id": uuid.uuid4().hex}
        record = {**record, "sum": _checksum(record)}
        storage.write_json(self.path / "complete.json", record)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the settings of nested sections by dotted name."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def different_settings(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns both values of each differing setting, by dotted name; None: absent."""
    stored, wanted = flatten(stored), flatten(wanted)
    missing = object()
    return {
        key: (stored.get(key), wanted.get(key))
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key, missing) != wanted.get(key, missing)
    }


def refuse_other_settings(
    path: pathlib.Path,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    advice: Mapping[str, str] | None = None,
) -> None:
    """Raises an InputError that names the settings that differ, if any.

    Args:
      path: what was made with the settings.
      stored: the settings that it was made with.
      wanted: the settings now.
      advice: see `Stage`.
    """
    differences = {
        key: values
        for key, values in different_settings(stored, wanted).items()
        if not _FORMER.fullmatch(key)
    }
    if not differences:
        return
    described = [f"{k} was {a!r} and is now {b!r}" for k, (a, b) in differences.items()]
    sections = {key.partition(".")[0] for key in differences}
    what = "go back to those, or give another workdir"
    if len(sections) == 1:
        what = (advice or {}).get(*sections, what)
    raise InputError(
        f"{path} was made with other settings ({'; '.join(described)}); {what}"
    )
