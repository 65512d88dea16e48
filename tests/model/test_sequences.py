"""The set of used sequence numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from moqt_trio.model.sequences import SequenceSet


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 30), unique=True))
def test_it_is_a_set(numbers):
    """With room for every range it holds exactly what was added, in whatever order."""
    used = SequenceSet(1000)
    for number in numbers:
        used.add(number)
    assert [number for number in range(32) if number in used] == sorted(numbers)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=8), st.integers(0, 30), st.integers(-1, 12))
def test_ranges(ranges, first, more):
    """Adding ranges, which may overlap and touch, adds their numbers; the queries about ranges agree with it."""
    used = SequenceSet(1000)
    expected: set[int] = set()
    for start, length in ranges:
        used.add_range(start, start + length)
        expected.update(range(start, start + length + 1))
    assert {number for number in range(50) if number in used} == expected
    assert used.lowest == min(expected, default=None)
    asked = set(range(first, first + more + 1))
    assert used.covers(first, first + more) == (asked <= expected)
    missing = {number for low, high in used.gaps(first, first + more) for number in range(low, high + 1)}
    assert missing == asked - expected


def test_past_its_bound_the_lowest_gap_closes():
    """Memory is bounded: with too many gaps the oldest numbers all count as used, the newer gaps stay."""
    used = SequenceSet(2)
    for number in (10, 20, 30):
        used.add(number)
    assert 9 not in used
    assert all(number in used for number in range(10, 21))
    assert 25 not in used
    assert 30 in used
