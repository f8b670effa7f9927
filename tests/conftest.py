"""Settings of every test process."""

import gc
import json
import os
import shutil
import signal

import pytest
import quick_compiler

# Most of the tests' time is XLA compiling small programs once; hardly optimised
# code computes the same in a fraction of it. The commands that tests start as
# processes of their own compile as they do for users.
_FLAGS = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{_FLAGS} {quick_compiler.FLAGS}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tracing makes many objects that live on; collecting them often takes 7 % of the time.
gc.set_threshold(100_000, 20, 20)
# Without a compiler, commands warn that XLA's kernels compute; tests compare what they
# print. One test sets this to 1 and expects the warning.
if not (os.environ.get("CXX") or any(map(shutil.which, ("g++", "clang++", "c++")))):
    os.environ.setdefault("EDP_NATIVE", "0")


# A shell's background job ignores Ctrl-C, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Whose asserts shall say their values, as those of the tests do.
pytest.register_assert_rewrite(
    "deployed_page",
    "finished_runs",
    "launching",
    "property_checks",
    "property_geometry",
    "property_losses",
    "property_metrics",
    "property_perturbations",
    "refusals",
    "report_pages",
    "small_data",
)

# Only now: they import JAX.
from launching import Commands, Server, locked, tiny  # noqa: E402
from small_data import write_npz  # noqa: E402


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A directory for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def commands(shared):
    return Commands(shared / "compiled")


@pytest.fixture(scope="session")
def server(commands):
    """Runs commands that end before anything is trained."""
    server = Server(commands)
    yield server
    server.close()


@pytest.fixture(scope="session")
def finished(shared, commands):
    """A finished tiny run, to read or to copy; its output is beside it."""
    workdir = shared / "finished"
    with locked(shared / "finished.lock"):
        if not (shared / "finished.json").exists():
            done = commands.run("run", *tiny(workdir))
            (shared / "finished.json").write_text(json.dumps(done))
    done = json.loads((shared / "finished.json").read_text())
    assert done[0] == 0, done
    return workdir


@pytest.fixture
def npz(tmp_path):
    """The data section of a small .npz file."""
    return write_npz(tmp_path / "set.npz")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to go on from."""
    return shutil.copytree(finished, tmp_path / "copied")
