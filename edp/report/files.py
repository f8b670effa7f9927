"""Readers of a run's files, any of which may be missing or damaged."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.evaluation.predictions import DATA_DIGESTS
from edp.report.rows import Row
from edp.runtime import storage


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads `results.json`.

    Raises:
      InputError: if the file is missing or is not a list of rows.
    """
    rows, why = read(path, storage.read_json)
    if why:
        raise InputError(f"no report without results.json: {path}: {why}")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "model" in row for row in rows
    ):
        raise InputError(f"{path} is not a list of rows that each name a model")
    return rows


def read_optional_mapping(path: pathlib.Path) -> tuple[Mapping, str]:
    """Reads a JSON object; returns it and "", or {} and the reason."""
    value, why = read(path, storage.read_mapping)
    return value or {}, why


def read_evaluated(path: pathlib.Path) -> tuple[list[Row], str, str]:
    """Reads the `rows` and the `protocol` of a JSON file.

    Returns:
      The rows, the protocol and the reason why there are none. A missing file is no
      error, as the evaluation is optional: no rows and no reason.
    """
    value, why = read_of_same_run(path)
    if why:
        return [], "", why if path.exists() else ""
    rows = value.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [], "", f"{path.name} has no rows in it"
    protocol = value.get("protocol")
    return rows, protocol if isinstance(protocol, str) else "", ""


def read_of_same_run(path: pathlib.Path) -> tuple[Mapping, str]:
    """Reads a JSON object that was computed from the networks that also predicted.

    Compares its `made_from` with `predictions/made_from.json` beside it. What either
    of them lacks, such as in the files of an old version, is not compared.

    Returns:
      The object and "", or {} and the reason why it is not used.
    """
    value, why = read_optional_mapping(path)
    if why or not (why := made_elsewhere(path, value)):
        return value, why
    return {}, why


def made_elsewhere(path: pathlib.Path, value: Mapping) -> str:
    """Returns why an object does not belong to the run's predictions; "" if it does.

    Args:
      path: the file of `value`; `predictions/made_from.json` is beside it.
      value: the JSON object that `read_of_same_run` compares.
    """
    index, _ = read_optional_mapping(path.parent / "predictions" / "made_from.json")
    made_from = value.get("made_from")
    if not isinstance(made_from, Mapping):
        return ""
    networks = {"teachers": made_from.get("teachers")}
    for key in ("predictors", "students"):
        networks |= _mapping(made_from, key)
    other = [
        name
        for name, training in networks.items()
        if training and index.get(name, training) != training
    ]
    data, now = _mapping(made_from, "data"), _mapping(index, DATA_DIGESTS)
    if any(data[key] != now[key] for key in data.keys() & now.keys()):
        other.append("other data")
    if not other:
        return ""
    return (
        f"{path.name} is of another training or of other data than the predictions "
        f"({', '.join(other)}); launch.evaluate computes it again"
    )


def _mapping(of: Mapping, key: str) -> Mapping:
    value = of.get(key)
    return value if isinstance(value, Mapping) else {}


def read(path: pathlib.Path, load: Callable[[pathlib.Path], Any]) -> tuple[Any, str]:
    """Calls `load`; returns its value and "", or None and the reason."""
    if not path.exists():
        return None, f"there is no {path.name}"
    try:
        return load(path), ""
    except InputError as error:  # names the whole path
        return None, str(error).replace(str(path), path.name)
    except OSError as error:
        return None, f"{path.name} cannot be read ({type(error).__name__})"


def load_arrays(*keys: str) -> Callable[[pathlib.Path], list[np.ndarray]]:
    """Returns a loader of these arrays of an `.npz` file; for `read`."""
    return lambda path: list(storage.read_npz(path, keys).values())


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
