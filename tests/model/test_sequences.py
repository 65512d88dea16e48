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


def test_past_its_bound_the_lowest_gap_closes():
    """Memory is bounded: with too many gaps the oldest numbers all count as used, the newer gaps stay."""
    used = SequenceSet(2)
    for number in (10, 20, 30):
        used.add(number)
    assert 9 not in used
    assert all(number in used for number in range(10, 21))
    assert 25 not in used
    assert 30 in used
