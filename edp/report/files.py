"""Reading a run's files, any of which may be missing or damaged."""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.report.rows import Row

# What reading JSON or an .npz raises where bytes of it are missing or flipped.
_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads `results.json`.

    Raises:
      InputError: it is missing or is not a list of rows.
    """
    rows, why = read(path, load_json)
    if why:
        raise InputError(f"no report without results.json: {path}: {why}")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "model" in row for row in rows
    ):
        raise InputError(f"{path} is not a list of rows that each name a model")
    return rows


def read_mapping(path: pathlib.Path) -> tuple[Mapping, str]:
    """What is in a JSON file, or {} and a few words on why not."""
    value, why = read(path, load_json)
    if isinstance(value, dict):
        return value, ""
    return {}, why or f"{path.name} is not a mapping"


def read_evaluated(path: pathlib.Path) -> tuple[list[Row], str, str]:
    """The `rows` and the `protocol` of a JSON file, and a few words on what is wrong.

    Without a file there are no rows, and nothing is wrong: none was asked for.
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
    """What is in a file, or None and a few words on why not."""
    try:
        return load(path), ""
    except FileNotFoundError:
        return None, f"there is no {path.name}"
    except _DAMAGED as error:
        return None, f"{path.name} cannot be read ({type(error).__name__})"


def load_json(path: pathlib.Path) -> Any:
    """For `read`: a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_test_predictions(
    folder: pathlib.Path, name: str
) -> tuple[list[np.ndarray] | None, str]:
    """The test split's probabilities and labels of 'teachers' or a student.

    A name with a slash in it would lead out of the folder: its last part is taken.

    Returns:
      [probs [S, N, K], labels [N]], or None and a few words on why not.
    """
    path = folder / f"{pathlib.PurePath(name).name}.npz"
    return read(path, load_arrays("test_probs", "test_labels"))


def load_arrays(*keys: str) -> Callable[[pathlib.Path], list[np.ndarray]]:
    """For `read`: the arrays of these names in an `.npz` file."""

    def load(path: pathlib.Path) -> list[np.ndarray]:
        with path.open("rb") as file, np.load(file) as arrays:
            return [arrays[key] for key in keys]

    return load
