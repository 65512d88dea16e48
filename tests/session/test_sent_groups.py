"""The count of the group streams of one subscription."""

from __future__ import annotations

from types import SimpleNamespace

import attrs

from moqt_trio.limits import Limits
from moqt_trio.session.publisher.group import SentGroup, SentGroups


class Owner:
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def group_refused(self, sequence):
        self.calls.append(("refused", sequence))

    def group_ready(self, sequence):
        self.calls.append(("ready", sequence))

    def group_delivered(self, sequence):
        self.calls.append(("delivered", sequence))


def opened(groups, sequence, *, buffered=0, owner=None):
    """Add a stream to the count and return it."""
    resets: list[int] = []
    stream = SimpleNamespace(buffered=buffered, resets=resets, reset=resets.append)
    out = SentGroup(owner or Owner(), sequence, stream, SimpleNamespace(opening=b""))
    groups.add(out)
    return out


def test_a_group_that_drains_makes_room_for_another():
    """Only groups that are being written count against `max_open_groups`."""
    groups = SentGroups(attrs.evolve(Limits(), max_open_groups=2))
    first = opened(groups, 0)
    assert not groups.all_writing
    opened(groups, 1)
    assert groups.all_writing
    assert groups.full(crowded=False)
    groups.drain(first)
    assert not groups.all_writing
    assert not groups.full(crowded=False)
    assert groups.draining == 1


def test_groups_that_are_not_acknowledged_are_bounded():
    """However little they hold, at most `max_unacknowledged_groups` streams are open."""
    groups = SentGroups(attrs.evolve(Limits(), max_unacknowledged_groups=2))
    for sequence in range(2):
        assert not groups.full(crowded=False)
        groups.drain(opened(groups, sequence))
    assert groups.full(crowded=False)
    assert not groups.all_writing
    assert groups.release(0) is not None
    assert not groups.full(crowded=False)


def test_bytes_that_drain_are_bounded():
    """At most `connection_window` bytes drain before no further stream is opened, counted once for each group."""
    groups = SentGroups(attrs.evolve(Limits(), connection_window=1000))
    groups.drain(opened(groups, 0, buffered=999))
    assert not groups.full(crowded=False)
    groups.drain(opened(groups, 1, buffered=1))
    assert groups.full(crowded=False)
    groups.release(1)
    assert not groups.full(crowded=False)
    assert groups.release(1) is None
    assert groups.draining == 1


def test_forgetting_returns_the_stream():
    """A group is removed once, without a call on its stream."""
    groups = SentGroups(Limits())
    out = opened(groups, 7)
    assert 7 in groups
    assert groups.streams.get(7) is out
    assert groups.release(7) is out
    assert out.stream.resets == []
    assert len(groups) == 0
    assert groups.release(7) is None


def test_resetting_all():
    """Every stream is reset with the code, and nothing is left in the count."""
    groups = SentGroups(Limits())
    streams = [opened(groups, sequence).stream for sequence in range(3)]
    groups.drain(next(iter(groups)))
    groups.reset_all(5)
    assert [stream.resets for stream in streams] == [[5]] * 3
    assert len(groups) == groups.draining == 0


def test_events_of_the_transport_reach_the_owner():
    """A stop, room and an acknowledgement each reach the owner with the group's sequence."""
    owner = Owner()
    out = opened(SentGroups(Limits()), 3, owner=owner)
    out.send_ready()
    out.send_finished()
    out.stop_received(1)
    assert owner.calls == [("ready", 3), ("delivered", 3), ("refused", 3)]
