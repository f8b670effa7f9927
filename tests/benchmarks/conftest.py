"""Fixtures of the benchmark's tests."""

import pytest

from benchmarks import cases, ours


@pytest.fixture(scope="session")
def tiny_problem():
    """The smallest case with untrained networks, of which no test changes anything."""
    return ours.create_problem(cases.CASES["tiny"], ["batch_ensemble"])
