"""What the client counts, and the line that it ends with."""

from __future__ import annotations

import pytest

from apps.echo.counters import Counters, percentile


def test_everything_came_back():
    """The line has the median and the 99th percentile of the round trips."""
    counters = Counters(sent=3, round_trips=[0.5, 4.0, 1.0])
    assert counters.summary() == "sent 3, echoed 3, lost 0, round trip p50 1000.00 ms, p99 4000.00 ms"


def test_nothing_came_back():
    """What has not come back is lost, and what came back as something else is wrong."""
    assert Counters(sent=3, wrong=1).summary() == "sent 3, echoed 0, lost 3, wrong 1"


def test_something_is_missing():
    """The round trips are those of the messages that came back."""
    counters = Counters(sent=3, round_trips=[1.0])
    assert counters.summary() == "sent 3, echoed 1, lost 2, round trip p50 1000.00 ms, p99 1000.00 ms"


def test_something_came_back_twice():
    """A second echo is wrong, and changes nothing else."""
    counters = Counters(sent=3, round_trips=[1.0] * 3, wrong=1)
    assert counters.summary().startswith("sent 3, echoed 3, lost 0, wrong 1, round trip p50")


def test_nothing_sent():
    """Nothing sent has no round trips."""
    assert Counters().summary() == "sent 0, echoed 0, lost 0"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)], ids=["p50", "p99", "highest", "lowest"]
)
def test_percentile(share, expected):
    """The nearest rank of the numbers from 1 to 100 is the share itself."""
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_percentile_of_one():
    """Of one value, every percentile is that value."""
    assert percentile([3.5], 0.5) == percentile([3.5], 0.99) == 3.5
