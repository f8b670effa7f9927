"""Limits the size of files, as a full disk does."""

import contextlib
import resource


@contextlib.contextmanager
def file_limit(num_bytes):
    """Limits the size of files; larger writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
