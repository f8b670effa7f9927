"""Entry points of the commands: flags, exit codes, signals, one-line errors."""

import contextlib
import functools
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

from absl import app, flags

from edp.errors import InputError
from edp.experiment import none_flags

from . import (
    config_flag,
    devices,
    distributed,
    exit_codes,
    log_filter,
    signals,
    terminal,
)

_CONFIG = config_flag.define_flag("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_DEBUG = flags.DEFINE_bool("debug", False, "Also show the traceback of an error.")


def main(
    stages: Callable,
    check: Callable = lambda config: None,
    without_config: tuple[flags.FlagHolder, Callable] | None = None,
) -> None:
    """Runs `stages(experiment)` as a command and exits with its code.

    0: success; 1: failure; 2: bad input; 75: interrupted, run again to resume.

    Args:
      stages: the work of the command.
      check: raises InputError if the command's own flags do not fit the config.
      without_config: a flag that replaces `--config`, and the `work(workdir)` that is
        run as in `from_files` if it is given.
    """
    _list_in_help(_CONFIG, _WORKDIR, _DEBUG, *distributed.FLAGS)

    def parse(argv):
        return _parse(argv, instead=without_config and without_config[0])

    def guarded(_):
        if without_config and without_config[0].value:
            _on_files(without_config[1])
        else:
            _guarded(stages, check)

    app.run(guarded, flags_parser=parse)


def from_files(work: Callable) -> None:
    """Runs `work(workdir)` as a command and exits as `main` does.

    For commands that need only the files of a run: reads no data, needs no `--config`
    and imports JAX only to join other processes.
    """
    _list_in_help(_WORKDIR, _DEBUG, *distributed.FLAGS)
    app.run(
        lambda _: _on_files(work),
        flags_parser=functools.partial(_parse, required=(_WORKDIR,)),
    )


def _on_files(work: Callable) -> None:
    from edp.runtime import storage

    log_filter.silence(debug=_DEBUG.value)
    signals.end_on_signals()
    with _ending_in_a_line():
        _join()
        work(storage.as_path(_WORKDIR.value))


def plan(work: Callable) -> None:
    """Runs `work(config, workdir)` as a command and exits with the code it returns.

    For commands that train nothing themselves: joins no other process, reads no data.
    """
    _list_in_help(_CONFIG, _WORKDIR, _DEBUG)

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


def _list_in_help(*holders: flags.FlagHolder) -> None:
    """Makes `--help` list flags that another module than the command's defines."""
    for holder in holders:
        flag = flags.FLAGS[holder.name]
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse(
    argv: list[str],
    required: tuple[flags.FlagHolder, ...] = (_CONFIG, _WORKDIR),
    instead: flags.FlagHolder | None = None,
) -> list[str]:
    """Parses the flags; `instead` is a flag that replaces `--config`."""
    terminal.escape_unencodable()
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
        if instead is not None and instead.value:
            if _CONFIG.value is not None:
                raise InputError(f"--config does not go with --{instead.name}")
            required = tuple(flag for flag in required if flag is not _CONFIG)
        if _CONFIG.value:
            none_flags.set_tuples(_CONFIG.value, flags.FLAGS[_CONFIG.name])
        for flag in required:
            if not flag.value:
                raise InputError(f"--{flag.name} is required")
    except (flags.Error, LookupError, AttributeError, TypeError, ValueError) as error:
        exit_codes.bad_input(error, debug="--debug" in argv)
    return rest


def _guarded(stages: Callable, check: Callable) -> None:
    from edp.experiment import validate
    from edp.experiment.create import create_experiment
    from edp.models import native
    from edp.runtime import loop, storage, xla

    log_filter.silence(debug=_DEBUG.value)
    signals.end_on_signals()
    _use_compilation_cache()
    xla.keep_memory()
    with _ending_in_a_line((loop.NonFinite,), (loop.Interrupted,)):
        validate.check(_CONFIG.value)
        check(_CONFIG.value)
        _join()
        native.load_ahead()
        directory = storage.as_path(_WORKDIR.value)
        stages(create_experiment(_CONFIG.value, directory))


def _join() -> None:
    """Joins the other processes; only the first one prints."""
    from edp.runtime import multihost

    distributed.join()
    if "jax" in sys.modules:
        devices.check()
    if not multihost.is_first():
        sys.stdout = io.StringIO()


@contextlib.contextmanager
def _ending_in_a_line(
    failures: tuple[type[Exception], ...] = (),
    interruptions: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Ends the command with a code and one line if the block raises.

    Args:
      failures: exceptions besides OSError that are not the input's fault.
      interruptions: exceptions besides KeyboardInterrupt that mean a request to stop.
    """
    try:
        yield
    except InputError as error:
        exit_codes.bad_input(error, debug=_DEBUG.value)
    except (*failures, OSError) as error:
        exit_codes.failure(error, debug=_DEBUG.value)
    except (*interruptions, KeyboardInterrupt) as error:
        what = str(error) or "complete stages are kept"
        line = f"interrupted: {what}; run the command again to resume"
        exit_codes.end(exit_codes.EXIT_INTERRUPTED, line)


def _use_compilation_cache() -> None:
    """Caches compiled programs between runs, so that the next one starts fast."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", f"{cache}/edp/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
