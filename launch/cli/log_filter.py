"""Filters uninformative output of libraries."""

import importlib.util
import logging as standard_logging
import sys
import threading

from absl import flags, logging


def silence(*, debug: bool = False) -> None:
    """Hides the log of Orbax, and errors in threads of TensorStore and asyncio.

    With `--verbosity`, the log is not filtered.

    Args:
      debug: whether errors in threads are printed anyway.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_logger().addFilter(is_not_of_orbax)
        standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    if not debug:
        sys.unraisablehook = _show_own


def is_not_of_orbax(record: standard_logging.LogRecord) -> bool:
    """Returns whether a record is critical or comes from other code than Orbax.

    Orbax warns about slow disks, and logs the traceback of every error that it raises.
    """
    if record.levelno >= standard_logging.CRITICAL:
        return True
    orbax = importlib.util.find_spec("orbax.checkpoint")
    directories = tuple(orbax.submodule_search_locations) if orbax else ()
    return not record.pathname.startswith(directories)


def _show_own(unraisable) -> None:
    """Prints an unraisable error, except those of TensorStore's threads on a full disk.

    These come from other threads and name no object.
    """
    is_own = threading.current_thread() is threading.main_thread()
    if is_own or unraisable.object is not None:
        sys.__unraisablehook__(unraisable)
