"""Exit codes of the commands, each with an error in one line."""

import os
import sys
import traceback
from typing import NoReturn

from edp.runtime import background

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, os.EX_TEMPFAIL


def bad_input(error: Exception, *, debug: bool = False) -> NoReturn:
    """Ends the command for input that the user can fix."""
    if debug:
        traceback.print_exception(error)
    end(EXIT_BAD_INPUT, f"error: {_in_a_line(str(error))}")


def failure(error: Exception, *, debug: bool = False) -> NoReturn:
    """Ends the command for a failure that is not the input's fault."""
    if debug:
        traceback.print_exception(error)
    what = str(error)
    if isinstance(error, OSError) and error.strerror:
        place = "".join(f"{name}: " for name in (error.filename,) if name)
        what = f"{place}{error.strerror}; files written before are kept"
    end(EXIT_FAILURE, f"failed: {_in_a_line(what)}")


def end(code: int, line: str) -> NoReturn:
    """Ends the command with a code and a line on stderr."""
    print(line, file=sys.stderr, flush=True)
    background.end_process(code)
    sys.exit(code)


def _in_a_line(text: str) -> str:
    return " ".join(text.split())
