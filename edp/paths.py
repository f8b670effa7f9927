"""Where files are: on this machine, or in a store of objects such as gs://.

In a store, a file is written whole or not at all, has no directory that must be made
first, and cannot be appended to or renamed; `etils.epath` does the rest.
"""

import os
import pathlib
from typing import Any

from edp.errors import InputError

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
