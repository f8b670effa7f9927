"""The --config flag: a configuration file, and its settings as flags of their own."""

import difflib
import re
import runpy
import sys
import traceback
from collections.abc import Iterator

import ml_collections
from absl import flags
from ml_collections import config_flags

from edp.errors import InputError


def define_flag(name: str) -> flags.FlagHolder:
    """Defines `--name=FILE` and `--name.section.key=VALUE`."""
    try:
        holder = config_flags.DEFINE_config_file(
            name, None, "Configuration file, such as configs/digits.py."
        )
    except flags.Error as error:  # of a --flagfile, which it reads already
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    flags.FLAGS[name].parser = _Parser(name)
    return holder


class _Parser(flags.ArgumentParser):
    """Loads the file; tells what is wrong with it or with the overrides in a line."""

    def __init__(self, name: str):
        self.name = name

    def parse(self, path: str) -> ml_collections.ConfigDict:
        file, *argument = path.split(":", 1)
        try:
            config = runpy.run_path(file)["get_config"](*argument)
        except Exception as error:
            raise InputError(_describe(error, file)) from error
        if not isinstance(config, ml_collections.ConfigDict):
            raise InputError(f"get_config() gave {config!r}; it must give a ConfigDict")
        known = list(_keys(config.to_dict()))
        overrides = [re.match(rf"--?(?:no)?{self.name}\.([^=]+)", a) for a in sys.argv]
        unknown = [m[1] for m in overrides if m and m[1] not in known]
        if unknown:
            raise InputError(
                "; ".join(
                    f"there is no setting {key}; did you mean "
                    f"{difflib.get_close_matches(key, known, n=1, cutoff=0)[0]}?"
                    for key in unknown
                )
            )
        return config.lock()


def _keys(tree: dict, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _describe(error: Exception, file: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
