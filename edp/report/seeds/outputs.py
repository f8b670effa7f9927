"""Files that a summary replaces: those of an earlier one only."""

from collections.abc import Iterable

from edp.errors import InputError
from edp.runtime import storage

SUMMARY = ("summary.md", "cnll.svg", "pareto.svg", "argument.svg", "distance.svg")
"""What `tables.write_summary` writes beside `summary.json`."""


def check_out(
    directory: storage.Path, stem: str, names: Iterable[str], setting: str = "out"
) -> None:
    """Checks that the files of a summary replace none of another origin.

    An earlier summary is known by its JSON file.

    Args:
      directory: where they are written.
      stem: name of the JSON file without `.json`.
      names: of the other files.
      setting: name of the setting that holds the directory.

    Raises:
      InputError: if there are files of these names without that JSON file, or another
        JSON file.
    """
    path = directory / f"{stem}.json"
    found = [name for name in (path.name, *names) if (directory / name).exists()]
    if found and not _is_summary(path):
        raise InputError(
            f"{setting}={str(directory)!r} holds {', '.join(found)}, not of an earlier "
            f"{stem}, which would be replaced; accepted: another directory"
        )


def _is_summary(path: storage.Path) -> bool:
    """Returns whether a JSON file is of `write_summary` or `write_sweep`."""
    try:
        found = storage.read_mapping(path)
    except (InputError, OSError):
        return False
    return "notes" in found and ("models" in found or "settings" in found)
