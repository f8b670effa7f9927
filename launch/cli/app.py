"""What all commands share: flags, exit codes, signals and errors in one line."""

import contextlib
import functools
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

from absl import app, flags

from edp.errors import InputError

from . import config_flag, distributed, exit_codes, log_filter, signals

_CONFIG = config_flag.define_flag("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of bad input too.")


def main(stages: Callable, check: Callable = lambda config: None) -> None:
    """Runs `stages(experiment)` as a command, and exits with its code.

    0: done; 1: failure; 2: bad input; 75: interrupted, run again to go on.

    Args:
      stages: what the command does.
      check: raises InputError for flags of its own that do not fit the config.
    """
    app.run(lambda _: _guarded(stages, check), flags_parser=_parse)


def from_files(work: Callable) -> None:
    """Runs `work(workdir)` as a command, and exits as `main` does.

    For what needs only the files of a run: it reads no data, needs no `--config` and
    imports JAX only to join other processes.
    """

    def guarded(_):
        from edp.runtime import storage

        log_filter.silence(debug=_DEBUG.value)
        signals.end_on_signals()
        with _ending_in_a_line():
            _join()
            work(storage.as_path(_WORKDIR.value))

    app.run(guarded, flags_parser=functools.partial(_parse, required=(_WORKDIR,)))


def plan(work: Callable) -> None:
    """Runs `work(config, workdir)` as a command, and exits with the code it gives.

    For what trains nothing itself: it joins no other process and needs no data.
    """

    def guarded(_):
        from edp.experiment import validate
        from edp.runtime import storage

        try:
            validate.check(_CONFIG.value)
            code = work(_CONFIG.value, storage.as_path(_WORKDIR.value))
        except InputError as error:
            exit_codes.bad_input(error, debug=_DEBUG.value)
        sys.exit(code)

    app.run(guarded, flags_parser=_parse)


def _parse(
    argv: list[str], required: tuple[flags.FlagHolder, ...] = (_CONFIG, _WORKDIR)
) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
        for flag in required:
            if not flag.value:
                raise InputError(f"--{flag.name} is required")
    except (flags.Error, LookupError, AttributeError, TypeError, ValueError) as error:
        exit_codes.bad_input(error, debug="--debug" in argv)
    return rest


def _guarded(stages: Callable, check: Callable) -> None:
    from edp.experiment import validate
    from edp.experiment.create import create_experiment
    from edp.runtime import loop, storage, xla

    log_filter.silence(debug=_DEBUG.value)
    signals.end_on_signals()
    _use_compilation_cache()
    xla.keep_memory()
    with _ending_in_a_line((loop.NonFinite,), (loop.Interrupted,)):
        validate.check(_CONFIG.value)
        check(_CONFIG.value)
        _join()
        directory = storage.as_path(_WORKDIR.value)
        stages(create_experiment(_CONFIG.value, directory))


def _join() -> None:
    """Joins the other processes, of which the first alone prints."""
    from edp.runtime import multihost

    distributed.join()
    if not multihost.is_first():
        sys.stdout = io.StringIO()


@contextlib.contextmanager
def _ending_in_a_line(
    failures: tuple[type[Exception], ...] = (),
    interruptions: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Ends the command, with its code, where the block raises what is expected.

    Args:
      failures: raised for what is no fault of the input, beside OSError.
      interruptions: raised on a request to stop, beside KeyboardInterrupt.
    """
    try:
        yield
    except InputError as error:
        exit_codes.bad_input(error, debug=_DEBUG.value)
    except (*failures, OSError) as error:
        exit_codes.failure(error, debug=_DEBUG.value)
    except (*interruptions, KeyboardInterrupt) as error:
        what = str(error) or "what is complete is kept"
        line = f"interrupted: {what}; run the command again to go on"
        exit_codes.end(exit_codes.EXIT_INTERRUPTED, line)


def _use_compilation_cache() -> None:
    """Compiled programs are kept between runs, so that the next starts fast."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", f"{cache}/edp/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
