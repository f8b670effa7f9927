"""Tests the filter of library logs."""

import inspect
import logging as standard_logging

import pytest
from absl import flags, logging
from grain import python as grain
from orbax import checkpoint
from orbax.checkpoint import args

from launch.cli import log_filter


@pytest.fixture
def logged(monkeypatch):
    """Returns what the `absl` logger emits after `log_filter.silence`."""
    flag = flags.FLAGS["verbosity"]
    monkeypatch.setattr(flag, "present", 0)
    logger, records = logging.get_absl_logger(), []
    handler = standard_logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    before, filters, level = flag.value, list(logger.filters), logger.level
    asyncio = standard_logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio, "level", asyncio.level)
    logger.addHandler(handler)
    log_filter.silence(debug=True)
    yield records
    logger.removeHandler(handler)
    logger.filters[:] = filters
    flag.value = before
    logger.setLevel(level)


def log_from(module, level):
    """Logs as a line of a module's file would."""
    source = f"logging.log({level}, {module.__name__!r})"
    exec(compile(source, inspect.getfile(module), "exec"), {"logging": logging})


def test_only_what_orbax_logs_is_left_out(logged):
    for module in (checkpoint, args, grain, pytest):
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            log_from(module, level)
    assert logged == ["grain.python"] * 2 + ["pytest"] * 2


def test_what_is_critical_is_shown_whoever_logs_it():
    record = standard_logging.makeLogRecord(
        {"levelno": standard_logging.CRITICAL, "pathname": inspect.getfile(args)}
    )
    assert log_filter.is_not_of_orbax(record)
    record.levelno = standard_logging.ERROR
    assert not log_filter.is_not_of_orbax(record)
