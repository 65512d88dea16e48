"""The client's count of what came back."""

from __future__ import annotations

import pytest

from apps.echo.tally import Tally, percentile


@pytest.fixture
def tally() -> Tally:
    """Three messages on their way, sent at the times 10, 11 and 12."""
    tally = Tally()
    for sequence, payload in enumerate([b"a", b"b", b""]):
        tally.note_sent(sequence, payload, 10.0 + sequence)
    return tally


def test_everything_came_back(tally):
    """Each message that comes back as it was sent, in whatever order, has a round trip and is waited for no longer."""
    assert [tally.note_echo(2, b"", 12.5), tally.note_echo(0, b"a", 14.0)] == [0.5, 4.0]
    assert list(tally.waiting) == [1]
    assert tally.note_echo(1, b"b", 12.0) == 1.0
    assert not tally.waiting
    assert tally.summary() == "sent 3, echoed 3, lost 0, round trip p50 1000.00 ms, p99 4000.00 ms"


@pytest.mark.parametrize(
    ("sequence", "payload"), [(0, b"b"), (1, b""), (7, b"a")], ids=["changed", "emptied", "never sent"]
)
def test_something_else_came_back(tally, sequence, payload):
    """An echo that is not what was sent under its sequence is wrong, and leaves what is missing missing."""
    assert tally.note_echo(sequence, payload, 20.0) is None
    assert tally.summary() == "sent 3, echoed 0, lost 3, wrong 1"


def test_twice(tally):
    """A second echo of one message is wrong, even when everything has come back."""
    for sequence, payload in enumerate([b"a", b"b", b"", b""]):
        tally.note_echo(min(sequence, 2), payload, 20.0)
    assert tally.summary().startswith("sent 3, echoed 3, lost 0, wrong 1, round trip p50")


def test_lost(tally):
    """A message that was given up is lost, unless it came back before; so is one that is still waited for."""
    tally.note_echo(0, b"a", 11.0)
    assert [tally.note_lost(sequence) for sequence in (0, 1, 1, 7)] == [False, True, False, False]
    assert list(tally.waiting) == [2]
    assert tally.summary() == "sent 3, echoed 1, lost 2, round trip p50 1000.00 ms, p99 1000.00 ms"


def test_nothing_sent():
    """Nothing sent has no round trips to tell of."""
    assert Tally().summary() == "sent 0, echoed 0, lost 0"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)], ids=["p50", "p99", "highest", "lowest"]
)
def test_percentile(share, expected):
    """The nearest rank of the numbers from 1 to 100 is the share itself."""
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_percentile_of_one():
    """Of one value, every percentile is that value."""
    assert percentile([3.5], 0.5) == percentile([3.5], 0.99) == 3.5
