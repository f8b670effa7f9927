"""Search for image files in directories."""

import collections
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from edp.data.image_preparation import SUFFIXES
from edp.runtime import multihost

_WHOLE_CONTENT = 1 << 16  # bytes up to which a fingerprint takes all of a file


class Files(NamedTuple):
    """Image files below `root` as `Encoded` images, which `Records` reads."""

    paths: list[pathlib.Path]
    root: pathlib.Path | None = None

    def fetch(self, indices: Sequence[int]) -> list[pathlib.Path]:
        """Returns the paths."""
        return [self.paths[index] for index in indices]

    def describe(self, index: int) -> str:
        """Returns the path."""
        return str(self.paths[index])

    def fingerprint(self, index: int) -> bytes:
        """Returns the path below `root`, the size and the content of one file.

        Of a file over 64 KiB, the content is the first and the last 32 KiB. Times are
        left out, so that a copy has the same fingerprint.
        """
        path = self.paths[index]
        name = path.name if self.root is None else path.relative_to(self.root)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, _WHOLE_CONTENT // 2))
            file.seek(max(len(content), size - _WHOLE_CONTENT // 2))
            content += file.read(_WHOLE_CONTENT // 2)
        return b"\0".join([os.fsencode(name), str(size).encode(), content])


class Found(NamedTuple):
    """Sorted image files; and suffix -> number of the files that are left out."""

    paths: list[pathlib.Path]
    left_out: Mapping[str, int]


def images_below(folder: pathlib.Path) -> Found:
    """Finds the files with a suffix in `SUFFIXES` in a folder and all folders below.

    Links are followed; a folder that several links lead to is read once. Names that
    begin with a dot are ignored, all other files are counted in `left_out`.

    Raises:
      OSError: if a folder cannot be listed.
    """
    paths, left_out = [], collections.Counter[str]()
    for entry in _entries_below(os.fspath(folder), set()):
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in SUFFIXES and entry.is_file():
            paths.append(pathlib.Path(entry.path))
        else:
            left_out[suffix or entry.name] += 1
    return Found(paths, left_out)


def _entries_below(folder: str, visited: set[str]) -> Iterator[os.DirEntry[str]]:
    """Yields what is no directory, in the order of the sorted paths."""
    visited.add(os.path.realpath(folder))
    with os.scandir(folder) as listing:
        shown = [entry for entry in listing if not entry.name.startswith(".")]
    for entry in sorted(shown, key=lambda entry: entry.name):
        if not entry.is_dir():
            yield entry
        elif os.path.realpath(entry.path) not in visited:
            yield from _entries_below(entry.path, visited)


def warn_left_out(where: str | os.PathLike, left_out: Mapping[str, int]) -> None:
    """Warns about files that are not read, with their number by suffix."""
    if left_out:
        kinds = ", ".join(f"{n} {name}" for name, n in sorted(left_out.items())[:8])
        more = ", ..." if len(left_out) > 8 else ""
        multihost.warn(
            f"{where}: {sum(left_out.values())} files are left out ({kinds}{more}); "
            f"image files end in {', '.join(SUFFIXES)}"
        )
