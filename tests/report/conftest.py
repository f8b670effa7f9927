"""Fixtures of the report's tests: a reported run, and runs under three seeds."""

import shutil

import pytest
import report_pages
from seed_runs import make_run

from edp import report
from edp.report.seeds import runs, summary


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A reported run: its workdir, its rows and the path of its page."""
    workdir = tmp_path_factory.mktemp("run")
    rows = report_pages.make_run(workdir)
    return workdir, rows, report.write_report(workdir)


@pytest.fixture(scope="session")
def workdirs(tmp_path_factory):
    """Three synthetic runs, of seeds 0, 1 and 2, to read."""
    base = tmp_path_factory.mktemp("runs")
    return [make_run(base / f"run{seed}", seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="session")
def summed(workdirs):
    """The summary of the three runs, to read."""
    return summary.summarize_runs(runs.read_runs(workdirs))


@pytest.fixture
def copies(workdirs, tmp_path):
    """Two of the workdirs, to change."""
    return [shutil.copytree(path, tmp_path / path.name) for path in workdirs[:2]]
