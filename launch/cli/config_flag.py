"""The --config flag: a configuration file, and a flag for each of its settings."""

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
from edp.experiment import none_flags

from . import exit_codes

# The package of shipped configurations lies beside this one, both in a checkout
# (`launch`, `configs`) and in a wheel (`edp.launch`, `edp.configs`).
_CONFIGS = f"{__package__.removesuffix('launch.cli')}configs"

# Sections of the settings, in the order of `configs/default.py`, for `--help`.
SECTIONS = {
    "mesh": "devices that share the members and the batches",
    "data": "source, splits, sizes, normalisation, augmentation, streaming",
    "model": "architecture, depth, width, dropout",
    "teachers": "kind and number of members, epochs, optimizer",
    "distill": "student, perturbation, loss, epochs, optimizer; for all students",
    "students": "by name, the settings that differ from distill",
    "evaluation": "analysis, OOD sets, corruptions",
}


def define_flag(name: str) -> flags.FlagHolder:
    """Defines `--name=FILE` and `--name.section.key=VALUE`."""
    none_flags.register()
    try:
        holder = config_flags.DEFINE_config_file(name, None, _help(name))
    except flags.Error as error:  # from a --flagfile, which absl reads here already
        exit_codes.bad_input(error)
    flags.FLAGS[name].parser = _Parser(name)
    return holder


def _help(name: str) -> str:
    """Returns the help text of `--name`; absl wraps each of its lines."""
    shipped = _shipped()
    sections = [f"{key}: {meaning}" for key, meaning in SECTIONS.items()]
    return "\n".join(
        [
            f"A shipped configuration ({', '.join(shipped)}) or a Python file of "
            "yours; with :debug after it, a run of seconds on synthetic images.",
            f"Each setting is a flag, such as --{name}.seed=1 or "
            f"--{name}.teachers.num_epochs=100. Sections:",
            *sections,
            f"All settings, with their meaning: {shipped['default']}",
        ]
    )


def _shipped() -> dict[str, pathlib.Path]:
    """Returns the files of the shipped configurations by name."""
    (directory,) = importlib.import_module(_CONFIGS).__path__
    return {
        path.stem: path
        for path in sorted(pathlib.Path(directory).glob("*.py"))
        if path.stem != "__init__"
    }


def find(name: str) -> pathlib.Path:
    """Returns the file of a configuration.

    Args:
      name: a path, or the name of a shipped configuration; a file at that path has
        precedence.

    Raises:
      InputError: if it is neither; lists the shipped names.
    """
    shipped = _shipped()
    path = pathlib.Path(name).expanduser()
    if path.is_file():
        return path
    if name not in shipped:
        raise InputError(
            "there is no such file and no shipped configuration of that name; "
            f"accepted: a file, or {', '.join(shipped)}"
        )
    return shipped[name]


def load(path: pathlib.Path) -> Callable[..., ml_collections.ConfigDict]:
    """Runs a configuration file and returns its `get_config`.

    The file runs as a module of the shipped package, wherever it lies, so that
    `from . import default` imports the shipped default. That package can be imported
    as `edp.configs`, and as `configs` unless another package has that name.
    """
    package = importlib.import_module(_CONFIGS)
    sys.modules.setdefault("edp.configs", package)
    if importlib.util.find_spec("configs") is None:
        sys.modules["configs"] = package
    return runpy.run_path(str(path), run_name=f"{_CONFIGS}.given")["get_config"]


class _Parser(flags.ArgumentParser):
    """Parser that loads the file and checks the overrides."""

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
            raise InputError(
                f"get_config() returned {config!r}; accepted: a ConfigDict"
            )
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
