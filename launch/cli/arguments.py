"""Argument checks for commands without a configuration."""

import contextlib
from collections.abc import Iterator, Sequence

from absl import flags, logging

from . import exit_codes, terminal


@contextlib.contextmanager
def bad_input_in_a_line() -> Iterator[None]:
    """Ends the command with exit code 2 and one line if the block raises InputError."""
    from edp.errors import InputError

    terminal.escape_unencodable()
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)
    try:
        yield
    except InputError as error:
        exit_codes.bad_input(error)


def require(*given: flags.FlagHolder) -> None:
    """Raises an InputError for the first flag without a value."""
    from edp.errors import InputError

    for flag in given:
        if not flag.value:
            raise InputError(f"--{flag.name} is required")


def refuse_arguments(arguments: Sequence[str]) -> None:
    """Raises an InputError if there are arguments besides flags."""
    from edp.errors import InputError

    if arguments:
        raise InputError(f"unexpected argument {arguments[0]!r}; flags begin with --")
