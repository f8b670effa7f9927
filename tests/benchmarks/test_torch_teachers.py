"""Tests the comparison of PyTorch teachers with the same ones in Flax."""

import pytest

from benchmarks import cases, timing


@pytest.mark.long
def test_torch_teachers_are_timed_beside_the_same_in_flax():
    pytest.importorskip("torch")
    from benchmarks import torch_teachers

    budget = timing.Budget(rounds=1, round_seconds=0.0, repeats=0)
    found = torch_teachers.compare(cases.CASES["tiny"], "disagreement", budget)
    assert len(found.flax) == len(found.torch) == 1
    assert found.ratio == found.flax[0] / found.torch[0] > 0
