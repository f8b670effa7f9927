"""The --config flag: a configuration file, and its settings as flags of their own."""

import difflib
import importlib
import importlib.util
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator

import ml_collections
from absl import flags
from ml_collections import config_flags

from edp.errors import InputError

from . import exit_codes

# The shipped configurations lie beside this package, in a checkout (`launch`,
# `configs`) as where a wheel puts them (`edp.launch`, `edp.configs`).
_CONFIGS = f"{__package__.removesuffix('launch.cli')}configs"


def define_flag(name: str) -> flags.FlagHolder:
    """Defines `--name=FILE` and `--name.section.key=VALUE`."""
    try:
        holder = config_flags.DEFINE_config_file(
            name,
            None,
            "A shipped configuration, such as digits, or a file of your own.",
        )
    except flags.Error as error:  # of a --flagfile, which it reads already
        exit_codes.bad_input(error)
    flags.FLAGS[name].parser = _Parser(name)
    return holder


def find(name: str) -> pathlib.Path:
    """The file that a configuration is in.

    Args:
      name: a path, or the name of a shipped one; a file of that path comes first.

    Raises:
      InputError: if it is neither; names those shipped.
    """
    (directory,) = importlib.import_module(_CONFIGS).__path__
    shipped = {
        path.stem: path
        for path in sorted(pathlib.Path(directory).glob("*.py"))
        if path.stem != "__init__"
    }
    path = pathlib.Path(name).expanduser()
    if path.is_file():
        return path
    if name not in shipped:
        raise InputError(
            "there is no such file, and no configuration of that name is shipped; "
            f"shipped are {', '.join(shipped)}"
        )
    return shipped[name]


def load(path: pathlib.Path) -> Callable[..., ml_collections.ConfigDict]:
    """Runs a configuration file and gives its `get_config`.

    The file is run as one of the shipped package, wherever it lies, so that
    `from . import default` is always the shipped one; and that package is known as
    `edp.configs`, and as `configs` where nothing else is, to files that name it.
    """
    package = importlib.import_module(_CONFIGS)
    sys.modules.setdefault("edp.configs", package)
    if importlib.util.find_spec("configs") is None:
        sys.modules["configs"] = package
    return runpy.run_path(str(path), run_name=f"{_CONFIGS}.given")["get_config"]


class _Parser(flags.ArgumentParser):
    """Loads the file; tells what is wrong with it or with the overrides in a line."""

    def __init__(self, name: str):
        self.name = name

    def parse(self, path: str) -> ml_collections.ConfigDict:
        name, *argument = path.split(":", 1)
        file = find(name)
        try:
            config = load(file)(*argument)
        except Exception as error:
            raise InputError(_describe(error, str(file))) from error
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
