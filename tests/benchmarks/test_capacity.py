"""Tests the search for the largest batch that fits, and what saves memory."""

import pytest

from benchmarks import capacity, cases


@pytest.mark.parametrize(
    ("limit", "batch"), [(99, 0), (100, 8), (900, 80), (904, 88), (1234, 120)]
)
def test_largest_batch_by_hand(limit, batch):
    asked = []

    def bytes_of(size):
        asked.append(size)
        return 20 + 10 * size + 4 * (size >= 88)  # not quite linear

    largest, needed = capacity.largest_batch(bytes_of, limit)
    assert largest == batch
    assert needed == bytes_of(max(batch, 8))
    assert len(asked) < 9


@pytest.mark.long
def test_saving_memory_lets_more_fit():
    step = cases.STEPS["distill/single/disagreement"]
    case = cases.CASES["tiny"]._replace(num_members=4, batch_size=64)
    plain, least = (
        capacity.peak_bytes(way, step) for way in capacity.ways(case).values()
    )
    assert least < plain
