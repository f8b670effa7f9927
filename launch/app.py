"""What all commands share: flags, exit codes, signals and errors in one line."""

import os
import pathlib
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from edp.errors import InputError

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 75

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, such as configs/digits.py."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of bad input too.")

_stop_signal: int | None = None


def should_stop() -> bool:
    """Whether the process was asked to save and end (SIGTERM, Ctrl-C)."""
    return _stop_signal is not None


def main(stages: Callable) -> None:
    """Runs `stages(experiment)` as a command, and exits with its code.

    0: done; 1: failure; 2: bad input; 75: interrupted, run again to go on.
    """
    app.run(lambda _: _guarded(stages), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
        for flag in (_CONFIG, _WORKDIR):
            if not flag.value:
                raise InputError(f"--{flag.name} is required")
    except (flags.Error, InputError, LookupError, AttributeError, TypeError) as error:
        _end(EXIT_BAD_INPUT, f"error: {_one_line(error)}")
    except (OSError, ValueError) as error:
        _end(EXIT_BAD_INPUT, f"error: --config: {_one_line(error)}")
    return rest


def _guarded(stages: Callable) -> None:
    from edp import experiment, training

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask_to_stop)
    _use_compilation_cache()
    try:
        directory = pathlib.Path(_WORKDIR.value)
        stages(experiment.create_experiment(_CONFIG.value, directory))
    except InputError as error:
        if _DEBUG.value:
            raise
        _end(EXIT_BAD_INPUT, f"error: {_one_line(error)}")
    except training.NonFiniteLoss as error:
        _end(EXIT_FAILURE, f"failed: {error}")
    except training.Interrupted as error:
        _end(EXIT_INTERRUPTED, f"interrupted: {error}; run the command again to go on")


def _ask_to_stop(number, frame) -> None:
    """The first signal lets the step finish and saves; a second one ends at once."""
    del frame
    global _stop_signal
    if _stop_signal is not None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _stop_signal = number


def _use_compilation_cache() -> None:
    """Compiled programs are kept between runs, so that the next starts fast."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", f"{cache}/edp/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _one_line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split())


def _end(code: int, line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
