"""Where files are: on this machine, or in a store of objects such as gs://.

In a store, a file is written whole or not at all, has no directory that must be made
first, and cannot be appended to or renamed; `etils.epath` does the rest.
"""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

from edp.errors import InputError
from edp.runtime import multihost

# A `pathlib.Path`, or one of `etils.epath`, which has its methods.
Path = Any
_SCHEMES = ("gs://", "s3://")


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path of this machine (`~` is the home), or of a store for `gs://...`.

    Raises:
      InputError: another scheme.
    """
    text = os.fspath(path)
    if "://" not in text:
        return pathlib.Path(text).expanduser()
    if not text.startswith(_SCHEMES):
        raise InputError(f"{text!r} cannot be used; accepted: a path, or {_SCHEMES}")
    from etils import epath

    return epath.Path(text)


def is_remote(path: Path) -> bool:
    """Whether it is in a store of objects."""
    return not isinstance(path, pathlib.Path)


def absolute(path: Path) -> Path:
    """From the root of this machine; one in a store is as it is."""
    return path if is_remote(path) else path.absolute()


def append(path: Path, text: str) -> None:
    """Adds to a small file, which may not be there yet."""
    if is_remote(path):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(before + text)
    else:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def check_reachable(path: Path, setting: str) -> None:
    """Raises an InputError where a store cannot be read."""
    try:
        path.exists()
    except ImportError as error:
        raise InputError(
            f"{setting}={str(path)!r} needs gcsfs: pip install gcsfs (s3://: s3fs)"
        ) from error
    except Exception as error:  # Of credentials, of the network, of its own kind.
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{setting}={str(path)!r} cannot be used: {why}") from error


def write_bytes(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Writes a whole file or nothing: to a temporary one, then renamed."""
    if not multihost.is_first():
        return
    if is_remote(path):
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
    if multihost.is_first():
        with _naming(path):
            append(path, line + "\n")


def check_writable(path: pathlib.Path, setting: str = "workdir") -> None:
    """Checks, without writing, that `path` is or can become a directory to write to.

    Args:
      path: the directory.
      setting: what it was given as.

    Raises:
      InputError: if not.
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
