"""What libraries print that tells a user nothing, kept from the terminal."""

import importlib.util
import logging as standard_logging
import sys
import threading

from absl import flags, logging


def silence(*, debug: bool = False) -> None:
    """Leaves out what Orbax logs, and what TensorStore's and asyncio's threads print.

    With `--verbosity`, everything is logged that it asks for.

    Args:
      debug: whether threads print their errors after all.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_logger().addFilter(is_not_of_orbax)
        standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    if not debug:
        sys.unraisablehook = _show_own


def is_not_of_orbax(record: standard_logging.LogRecord) -> bool:
    """Whether a record is of other code than Orbax, or critical.

    Orbax warns where no more than a disk is slow, and logs the traceback of every
    error that it then raises.
    """
    if record.levelno >= standard_logging.CRITICAL:
        return True
    orbax = importlib.util.find_spec("orbax.checkpoint")
    directories = tuple(orbax.submodule_search_locations) if orbax else ()
    return not record.pathname.startswith(directories)


def _show_own(unraisable) -> None:
    """Not what else TensorStore's threads print, of no object, when a disk is full."""
    is_own = threading.current_thread() is threading.main_thread()
    if is_own or unraisable.object is not None:
        sys.__unraisablehook__(unraisable)
