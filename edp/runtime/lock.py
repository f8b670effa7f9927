"""Advisory lock of a directory: one run at a time writes to it."""

import contextlib
import errno
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator

import filelock

from edp.errors import InputError
from edp.runtime import multihost, storage

NAME = ".lock"

# Errors of file systems without locks.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a directory, in process 0 on behalf of all.

    The system releases the lock when the process ends, however it ends. The lock file
    names the holder; it is removed on release, so that only a killed process leaves
    one. On a file system without locks, warns and holds nothing; in an object store,
    holds nothing.

    Raises:
      InputError: if another run holds the lock; in all processes of this run.
    """
    path, lock, refusal = directory / NAME, None, None
    if multihost.is_first() and not storage.is_remote(directory):
        directory.mkdir(parents=True, exist_ok=True)
        # Soft locks would outlive a killed process.
        lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
        refusal = _acquire(lock, path)
    try:
        refusal = multihost.from_first(refusal)
        if refusal:
            raise InputError(refusal)
        yield
    finally:
        if lock is not None and lock.is_locked:
            with contextlib.suppress(OSError):
                path.unlink()  # before another run can acquire the lock
            lock.release()


def _acquire(lock: filelock.BaseFileLock, path: pathlib.Path) -> str | None:
    """Acquires the lock and records the holder; returns why not if another holds it.

    Warns, and returns None, where the file system has no locks.
    """
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    try:
        lock.acquire()
        path.write_text(json.dumps(holder), encoding="utf-8")
    except filelock.Timeout:
        return (
            f"{path.parent} is being written by {_read_holder(path)}; wait until that "
            "ends, or end it, and run the command again"
        )
    except OSError as error:
        lock.release()
        if error.errno not in _UNSUPPORTED:
            error.filename = error.filename or str(path)  # missing if the disk is full
            raise
        multihost.warn(
            f"{path.parent} cannot be locked ({error.strerror}): make sure that no "
            "other run writes to it"
        )
    return None


def _read_holder(path: pathlib.Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return "process {pid} on {host}, since {since}".format(**holder)
    except (OSError, KeyError, TypeError, ValueError):  # not written yet
        return "another process"
