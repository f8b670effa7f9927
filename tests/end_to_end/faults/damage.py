"""Damage to files, and the files and checkpoints to damage."""

import os
import pathlib
from collections.abc import Callable, Iterator

from edp.runtime import checksums


def _flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[pathlib.Path], None]] = {
    "flipped": _flip,
    "truncated": _truncate,
    "missing": os.remove,
}


def cases(directory: pathlib.Path, every: int) -> Iterator[tuple[str, pathlib.Path]]:
    """Iterates over every n-th pair of a kind of damage and a file."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    found = [(kind, path) for path in files for kind in DAMAGE]
    return iter(found[::every])


def newest_step(checkpoints: pathlib.Path) -> pathlib.Path:
    """Returns the directory of the newest checkpoint."""
    steps = [path for path in checkpoints.iterdir() if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


def newest_checksums(workdir: pathlib.Path) -> dict[str, bytes]:
    """Returns the checksums of each stage's newest checkpoint."""
    found = {}
    for path in workdir.glob("**/checkpoints"):
        if any(step.name.isdigit() for step in path.iterdir()):
            step = newest_step(path)
            if checksums.exists(step) and checksums.damage(step) is None:
                found[str(step)] = (step / checksums.NAME).read_bytes()
    return found
