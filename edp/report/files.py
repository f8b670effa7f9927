"""Readers of a run's files, any of which may be missing or damaged."""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.report.rows import Row

# Raised by reading JSON or an .npz with missing or flipped bytes.
_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads `results.json`.

    Raises:
      InputError: if the file is missing or is not a list of rows.
    """
    rows, why = read(path, load_json)
    if why:
        raise InputError(f"no report without results.json: {path}: {why}")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "model" in row for row in rows
    ):
        raise InputError(f"{path} is not a list of rows that each name a model")
    return rows


def read_optional_mapping(path: pathlib.Path) -> tuple[Mapping, str]:
    """Reads a JSON object; returns it and "", or {} and the reason."""
    value, why = read(path, load_json)
    if isinstance(value, dict):
        return value, ""
    return {}, why or f"{path.name} is not a mapping"


def read_evaluated(path: pathlib.Path) -> tuple[list[Row], str, str]:
    """Reads the `rows` and the `protocol` of a JSON file.

    Returns:
      The rows, the protocol and the reason why there are none. A missing file is no
      error, as the evaluation is optional: no rows and no reason.
    """
    value, why = read(path, load_json)
    if why:
        return [], "", why if path.exists() else ""
    rows = value.get("rows") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [], "", f"{path.name} has no rows in it"
    protocol = value.get("protocol")
    return rows, protocol if isinstance(protocol, str) else "", ""


def read(path: pathlib.Path, load: Callable[[pathlib.Path], Any]) -> tuple[Any, str]:
    """Calls `load`; returns its value and "", or None and the reason."""
    try:
        return load(path), ""
    except FileNotFoundError:
        return None, f"there is no {path.name}"
    except _DAMAGED as error:
        return None, f"{path.name} cannot be read ({type(error).__name__})"


def load_json(path: pathlib.Path) -> Any:
    """Loads a JSON file; for `read`."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_test_predictions(
    folder: pathlib.Path, name: str
) -> tuple[list[np.ndarray] | None, str]:
    """Reads test probabilities and labels of 'teachers' or of a student.

    Only the last part of `name` is used, so that a slash cannot leave the folder.

    Returns:
      [probs [S, N, K], labels [N]] and "", or None and the reason.
    """
    path = folder / f"{pathlib.PurePath(name).name}.npz"
    return read(path, load_arrays("test_probs", "test_labels"))


def load_arrays(*keys: str) -> Callable[[pathlib.Path], list[np.ndarray]]:
    """Returns a loader of these arrays of an `.npz` file; for `read`."""

    def load(path: pathlib.Path) -> list[np.ndarray]:
        with path.open("rb") as file, np.load(file) as arrays:
            return [arrays[key] for key in keys]

    return load
