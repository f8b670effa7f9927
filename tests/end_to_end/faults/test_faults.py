"""Tests that faults lose no results, with the long form of the fault harness."""

import argparse

import pytest

from tests.end_to_end.faults import harness

LONG = {"runs": 50, "terminations": 20, "every": 1, "full": 8, "two": 2, "seed": 0}


@pytest.mark.long
def test_no_result_is_lost(tmp_path, capsys):
    arguments = argparse.Namespace(**LONG, dir=tmp_path, only=None)
    code = harness.main(arguments)
    assert code == 0, capsys.readouterr().out
