"""Placement of tensors in one block of memory."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.toolchain.planning.memory import ALIGNMENT, Lifetime, MemoryReport, live_bytes, place

lives = st.builds(
    lambda size, first, length: Lifetime(size, first, first + length),
    st.integers(0, 5000),
    st.integers(0, 20),
    st.integers(0, 6),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(lives, max_size=25))
def test_tensors_that_are_alive_together_never_share_a_byte(lifetimes):
    offsets, total = place(lifetimes)
    for i, (one, start) in enumerate(zip(lifetimes, offsets, strict=True)):
        assert start % ALIGNMENT == 0
        assert 0 <= start <= start + one.size <= total
        for other, begin in zip(lifetimes[:i], offsets[:i], strict=True):
            if one.overlaps(other):
                assert start + one.size <= begin or begin + other.size <= start


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=30))
def test_a_chain_of_layers_needs_no_more_than_its_largest_neighbours(sizes):
    aligned = [ALIGNMENT * size for size in sizes]
    chain = [Lifetime(size, step, step + 1) for step, size in enumerate(aligned)]
    _, total = place(chain)
    needed = max(a + b for a, b in pairwise(aligned))
    assert live_bytes(chain) == needed
    assert total <= 1.3 * needed


def test_live_bytes_count_what_overlaps_at_one_step():
    lifetimes = [Lifetime(10, 0, 2), Lifetime(5, 1, 1), Lifetime(7, 2, 3), Lifetime(100, 4, 4)]
    assert live_bytes(lifetimes[:3]) == 17
    assert live_bytes(lifetimes) == 100
    assert live_bytes([]) == 0


def test_the_report_is_a_ratio_to_what_is_needed():
    assert MemoryReport(130, 100).ratio == 1.3
    assert MemoryReport(0, 0).ratio == 1.0
