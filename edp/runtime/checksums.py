"""SHA-256 checksums of a directory's files, which detect corruption."""

import hashlib
import pathlib

from edp.errors import InputError
from edp.runtime import multihost, storage

NAME = "sha256.json"


def write(directory: pathlib.Path) -> None:
    """Writes the sizes and checksums of all files below `directory` into it.

    Writes nothing in an object store, which verifies checksums of its own.
    """
    if multihost.is_first() and not storage.is_remote(directory):
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        entries = {
            path.relative_to(directory).as_posix(): [path.stat().st_size, _digest(path)]
            for path in files
            if path.name != NAME
        }
        storage.write_json(directory / NAME, {"files": entries})


def exists(directory: pathlib.Path) -> bool:
    """Returns whether there are checksums; older versions of this code wrote none."""
    return (directory / NAME).exists()


def damage(directory: pathlib.Path) -> str | None:
    """Returns what is wrong with the first damaged file, naming it, or None.

    Process 0 verifies the files on behalf of all. None also without checksums.
    """
    found = None
    if multihost.is_first() and exists(directory):
        found = _damage(directory)
    return multihost.from_first(found)


def _damage(directory: pathlib.Path) -> str | None:
    try:
        files = storage.read_mapping(directory / NAME)["files"].items()
        files = [(name, int(size), str(digest)) for name, (size, digest) in files]
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return f"{NAME} is not a list of checksums"
    for name, size, digest in files:
        path = directory / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes and should have {size:,}"
            if _digest(path) != digest:
                return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
