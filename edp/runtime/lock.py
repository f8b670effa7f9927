"""One process at a time at what it writes, by a lock that dies with the process."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from edp.errors import InputError
from edp.runtime import multihost, storage

NAME = ".lock"

# What file systems answer that have no locks, and what a lock that is held does.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a directory, of which process 0 keeps all others out.

    The system lets go of it when the process ends, however it does. The file tells
    who holds it, and is gone when nobody does but for one that was killed. Where the
    file system knows no locks, a warning is given and nothing is held; nor is it in a
    store of objects.

    Raises:
      InputError: if another run holds it; in all processes of this one.
    """
    file, refusal = None, None
    if multihost.is_first() and not storage.is_remote(directory):
        directory.mkdir(parents=True, exist_ok=True)
        file, refusal = _acquire(directory / NAME)
    try:
        refusal = multihost.from_first(refusal)
        if refusal:
            raise InputError(refusal)
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                (directory / NAME).unlink()  # before another can get the lock
            os.close(file)


def _acquire(path: pathlib.Path) -> tuple[int | None, str | None]:
    """The open, locked file; or None, and why not if it is another's."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):  # or its last holder has just removed it
                _tell_holder(file)
                return file, None
        except OSError as error:
            try:
                return None, _refusal(file, path, error)
            finally:
                os.close(file)
        os.close(file)


def _is_at(file: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _tell_holder(file: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)


def _refusal(file: int, path: pathlib.Path, error: OSError) -> str | None:
    """Why the lock was not had; None, with a warning, where there are no locks."""
    if error.errno in _HELD:
        try:
            holder = json.loads(os.pread(file, 4096, 0))
            who = "process {pid} on {host}, since {since}".format(**holder)
        except (KeyError, TypeError, ValueError):  # not written yet
            who = "another process"
        return (
            f"{path.parent} is being written by {who}; wait until that ends, or end "
            "it, and run the command again"
        )
    if error.errno not in _UNSUPPORTED:
        error.filename = error.filename or str(path)  # as where the disk is full
        raise error
    multihost.warn(
        f"{path.parent} cannot be locked ({error.strerror}): take care that no other "
        "run writes to it"
    )
    return None
