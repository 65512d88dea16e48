"""Live delivery: the writer never waits, and the oldest groups of a slow subscriber are dropped."""

from __future__ import annotations

import math

import trio
import trio.testing

from moqt_trio.codes import StreamCode


async def test_the_writer_never_waits(make_track, subscribe):
    """However large a subscriber's backlog is, writing does not wait."""
    track = make_track(live_backlog=1, live_backlog_groups=1)
    subscribe(track)
    for _ in range(50):
        track.write_nowait(b"abc")
    with trio.testing.assert_checkpoints():
        await track.write(b"abc")


async def test_past_the_bound_in_bytes_the_oldest_go(make_track, subscribe):
    """Exactly at the bound nothing is dropped; one byte more drops the oldest group, reported and counted."""
    track = make_track(live_backlog=10)
    reader = subscribe(track)
    track.write_nowait(b"12345")
    track.write_nowait(b"67890")
    assert reader.pending == [0, 1]
    track.write_nowait(b"x")
    assert reader.pending == [1, 2]
    assert reader.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    assert reader.cursor.dropped_groups == 1
    assert reader.cursor.backlog == 6


async def test_past_the_bound_in_groups_the_oldest_go(make_track, subscribe):
    """With more groups of backlog than the bound, the oldest are dropped until it holds."""
    track = make_track(live_backlog_groups=2)
    reader = subscribe(track)
    for _ in range(5):
        track.write_nowait(b"a")
    assert reader.pending == [3, 4]
    assert reader.cursor.take_dropped() == [(number, StreamCode.TOO_FAR_BEHIND) for number in (0, 1, 2)]


async def test_the_latest_group_is_never_dropped(make_track, subscribe):
    """A latest group that alone exceeds the bound is delivered whole, and all older ones are dropped."""
    track = make_track(live_backlog=10)
    reader = subscribe(track)
    track.write_nowait(b"old")
    writer = track.open_group()
    for _ in range(4):
        writer.send_nowait(b"12345")
    assert reader.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    writer.finish()
    assert reader.read() == {1: [b"12345"] * 4}


async def test_an_older_group_alone_past_the_bound_is_dropped(make_track, subscribe):
    """Once the latest was taken, an older group that grows past the bound is dropped even when it is the only one."""
    track = make_track(live_backlog=10)
    reader = subscribe(track)
    writer = track.open_group()
    track.write_nowait(b"new")
    assert reader.read() == {0: [], 1: [b"new"]}
    writer.send_nowait(bytes(10))
    assert reader.pending == [0]
    writer.send_nowait(b"x")
    assert reader.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    assert reader.cursor.backlog == 0


async def test_open_groups_that_were_read_are_no_lag(make_track, subscribe):
    """For a subscriber that has read everything nothing is dropped, however many groups are open at once."""
    track = make_track(live_backlog_groups=2)
    reader = subscribe(track)
    writers = []
    for _ in range(6):
        writers.append(track.open_group())
        writers[-1].send_nowait(b"a")
        reader.read()
    assert reader.cursor.take_dropped() == []
    for writer in writers:
        writer.send_nowait(b"b")
        writer.finish()
        assert reader.read() == {writer.sequence: [b"b"]}
    assert reader.cursor.take_dropped() == []


async def test_a_slow_subscriber_costs_the_others_nothing(make_track, subscribe):
    """While groups are dropped for a stalled subscriber, one that keeps up gets every group."""
    track = make_track(live_backlog_groups=2)
    stalled, fast = subscribe(track), subscribe(track)
    for number in range(20):
        track.write_nowait(bytes([number]))
        assert fast.read() == {number: [bytes([number])]}
    assert fast.cursor.dropped_groups == 0
    assert stalled.cursor.dropped_groups == 18
    assert stalled.read() == {18: [b"\x12"], 19: [b"\x13"]}


async def test_a_group_expires_when_the_next_one_began_max_age_ago(make_track, subscribe):
    """A group is dropped as OLD once the next group's first timestamp is max age before the newest; equality counts."""
    track = make_track(timescale=1000)
    reader = subscribe(track, max_age=2)
    track.write_nowait(b"a", 0)
    writer = track.open_group()
    writer.send_nowait(b"b", 5000)
    writer.send_nowait(b"b", 6999)
    assert reader.pending == [0, 1]
    writer.send_nowait(b"b", 7000)
    assert reader.pending == [1]
    assert reader.cursor.take_dropped() == [(0, StreamCode.OLD)]


async def test_age_counts_in_the_timescale(make_track, subscribe):
    """Max age is in seconds, timestamps in the track's units."""
    track = make_track(timescale=10)
    reader = subscribe(track, max_age=2)
    track.write_nowait(b"a", 0)
    track.write_nowait(b"b", 5)
    track.write_nowait(b"c", 24)
    assert reader.pending == [0, 1, 2]
    track.write_nowait(b"d", 25)
    assert reader.pending == [1, 2, 3]


async def test_the_latest_never_expires(make_track, subscribe):
    """However old a group's frames are, it stays while no newer group has a frame."""
    track = make_track()
    reader = subscribe(track, max_age=0)
    writer = track.open_group()
    writer.send_nowait(b"a", 0)
    writer.send_nowait(b"a", 10**9)
    assert reader.pending == [0]
    newer = track.open_group()
    assert reader.pending == [0, 1]
    newer.send_nowait(b"b", 10**9)
    assert reader.pending == [1]


async def test_max_age_0_keeps_the_latest_only(make_track, subscribe):
    """With max age 0 every group is dropped as soon as a newer one has a frame."""
    track = make_track()
    reader = subscribe(track, max_age=0)
    for number in range(4):
        track.write_nowait(b"a", number)
    assert reader.pending == [3]
    assert reader.cursor.take_dropped() == [(number, StreamCode.OLD) for number in (0, 1, 2)]


async def test_an_empty_group_does_not_hide_the_reach(make_track, subscribe):
    """A group whose successor has no frame ends at the first frame after that."""
    track = make_track()
    reader = subscribe(track, max_age=1)
    track.write_nowait(b"a", 0)
    track.open_group().finish()
    track.write_nowait(b"b", 1000)
    track.write_nowait(b"c", 1999)
    assert reader.pending == [0, 1, 2, 3]
    track.write_nowait(b"d", 2000)
    assert reader.pending == [2, 3, 4]


async def test_a_group_expires_though_it_is_the_only_one_pending(make_track, subscribe):
    """An older group expires also when the subscriber's range holds nothing newer that it has not taken."""
    track = make_track()
    reader = subscribe(track, max_age=1, end_group=1)
    stuck = track.open_group()
    stuck.send_nowait(b"a", 0)
    track.write_nowait(b"b", 0)
    assert reader.take(1) == [b"b"]
    track.write_nowait(b"c", 1000)
    assert reader.cursor.take_dropped() == [(0, StreamCode.OLD)]


async def test_each_subscriber_has_its_own_max_age(make_track, subscribe):
    """A group that is too old for one subscriber is delivered to another; a change applies from the next frame."""
    track = make_track()
    strict, tolerant = subscribe(track, max_age=0), subscribe(track, max_age=math.inf)
    for number in range(3):
        track.write_nowait(b"a", number * 10**6)
    assert strict.pending == [2]
    assert tolerant.pending == [0, 1, 2]
    tolerant.cursor.max_age = 0
    track.write_nowait(b"a", 3 * 10**6)
    assert tolerant.pending == [3]


async def test_a_datagram_counts_as_a_group_of_backlog(make_track, subscribe):
    """Datagrams that are not taken are bounded like groups."""
    track = make_track(live_backlog_groups=2)
    reader = subscribe(track)
    for _ in range(4):
        track.send_datagram(b"a")
    assert reader.pending == [2, 3]
    assert [sequence for sequence, _ in reader.cursor.take_dropped()] == [0, 1]
