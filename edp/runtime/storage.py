"""Files on this machine or in an object store such as gs://, written atomically.

Object stores write whole objects atomically, need no directories, and cannot append or
rename; `etils.epath` hides the other differences.
"""

import contextlib
import io
import json
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.runtime import multihost

# A `pathlib.Path`, or a path of `etils.epath`, which has the same methods.
Path = Any
_SCHEMES = ("gs://", "s3://")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Returns a local path, with `~` expanded, or for `gs://...` one in a store.

    Raises:
      InputError: if the scheme is another one.
    """
    text = os.fspath(path)
    if "://" not in text:
        return pathlib.Path(text).expanduser()
    if not text.startswith(_SCHEMES):
        raise InputError(f"{text!r} cannot be used; accepted: a path, or {_SCHEMES}")
    from etils import epath

    return epath.Path(text)


def is_remote(path: Path) -> bool:
    """Returns whether the path is in an object store."""
    return not isinstance(path, pathlib.Path)


def absolute(path: Path) -> Path:
    """Returns the absolute path; a path in a store is returned as it is."""
    return path if is_remote(path) else path.absolute()


def append(path: Path, text: str) -> None:
    """Appends to a small file, which need not exist."""
    if is_remote(path):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(before + text)
    else:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def check_reachable(path: Path, setting: str) -> None:
    """Raises an InputError if a store cannot be read."""
    try:
        path.exists()
    except ImportError as error:
        raise InputError(
            f"{setting}={str(path)!r} needs gcsfs: pip install gcsfs (s3://: s3fs)"
        ) from error
    except Exception as error:  # credentials, network; classes of its own
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{setting}={str(path)!r} cannot be used: {why}") from error


def write_bytes(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a file atomically: a temporary file, renamed. Process 0 alone writes."""
    if not multihost.is_first():
        return
    if is_remote(path):
        path.write_bytes(bytes(data))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files no other user can read.
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
    """Adds the file name to errors that lack it, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file atomically; names of files that are not UTF-8 as they are."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON atomically; raises a ValueError for NaN."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
      FileNotFoundError: if it does not exist.
      InputError: if it is damaged; names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


def read_mapping(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object; as `read_json`, and an InputError for anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged; accepted: a JSON object")
    return value


def write_npz(
    path: pathlib.Path, arrays: Mapping[str, Any], *, compress: bool = False
) -> None:
    """Writes arrays as an .npz file atomically."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def read_npz(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file; never unpickles.

    Args:
      path: of the file.
      names: the arrays to read; None: all.

    Raises:
      InputError: if the file does not exist, is damaged, is not an .npz of plain
        arrays, or lacks one of the names; names the file.
    """
    try:
        with (
            as_path(path).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return {name: arrays[name] for name in (arrays if names is None else names)}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except Exception as error:  # damage can raise in any layer: zip, deflate, header
        why = str(error) or type(error).__name__
        if "pickle" in why:  # NumPy explains how to unpickle
            why = "it holds Python objects, or is another kind of file"
        raise InputError(
            f"{path} cannot be read as an .npz of plain arrays: {why}"
        ) from error


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a file, which need not exist. Process 0 alone writes."""
    if multihost.is_first():
        with _naming(path):
            append(path, line + "\n")


def check_writable(path: pathlib.Path, setting: str = "workdir") -> None:
    """Checks, without writing, that `path` is or can become a writable directory.

    Args:
      path: the directory.
      setting: name of the setting that holds it.

    Raises:
      InputError: if it cannot.
    """
    if is_remote(path):
        check_reachable(path, setting)
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
