"""SHA-256 sums of a directory's files, kept among them, by which damage is found."""

import hashlib
import pathlib

from edp.errors import InputError
from edp.runtime import multihost, storage

NAME = "sha256.json"


def write(directory: pathlib.Path) -> None:
    """Writes the sizes and sums of all files below `directory` into it.

    Not in a store of objects, which keeps sums of its own.
    """
    if multihost.is_first() and not storage.is_remote(directory):
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        sums = {
            path.relative_to(directory).as_posix(): [path.stat().st_size, _sum(path)]
            for path in files
            if path.name != NAME
        }
        storage.write_json(directory / NAME, {"files": sums})


def exists(directory: pathlib.Path) -> bool:
    """Whether there are sums; older versions of this code wrote none."""
    return (directory / NAME).exists()


def damage(directory: pathlib.Path) -> str | None:
    """What is wrong with the files, in a few words that name the first at fault.

    As process 0 finds it, for all. None where they are as they were written, or where
    there are no sums of them.
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
        return f"{NAME} is not a list of sums"
    for name, size, digest in files:
        path = directory / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes and should have {size:,}"
            if _sum(path) != digest:
                return f"{name} has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _sum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
