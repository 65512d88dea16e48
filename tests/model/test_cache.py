"""What a track keeps for late subscribers and fetches: bounded in bytes, groups and age."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.model.track import state_of


def kept(track):
    """The sequences of the groups that are kept."""
    return [number for number in range((track.latest or 0) + 1) if state_of(track).group(number) is not None]


def kept_bytes(track):
    """The bytes of the frames that are kept, counted one by one."""
    return sum(len(frame) for number in kept(track) for frame in state_of(track).group(number).frames)


async def test_the_cache_is_bounded_in_bytes(make_track, subscribe):
    """The oldest complete groups are evicted as soon as the bytes exceed the bound; exactly at it all are kept."""
    track = make_track(cache_bytes=10)
    track.write_nowait(b"12345")
    track.write_nowait(b"67890")
    assert kept(track) == [0, 1]
    track.write_nowait(b"x")
    assert kept(track) == [1, 2]
    assert kept_bytes(track) == 6
    assert subscribe(track, replay=True).pending == [1, 2]


async def test_the_newest_frame_is_kept_though_it_is_too_big(make_track, subscribe):
    """A single frame past the bound is kept until a newer one comes."""
    track = make_track(cache_bytes=4)
    reader = subscribe(track)
    track.write_nowait(b"123456")
    assert kept(track) == [0]
    assert reader.read() == {0: [b"123456"]}
    track.write_nowait(b"1")
    assert kept(track) == [1]


async def test_the_cache_is_bounded_in_groups(make_track):
    """No more groups are kept than the bound, empty ones included."""
    track = make_track(cache_groups=3)
    for _ in range(10):
        track.open_group().finish()
    assert kept(track) == [7, 8, 9]


async def test_groups_leave_by_age(make_track, mock_clock):
    """A group is kept for max age after a newer one has come, and leaves when a group is written later than that."""
    track = make_track(max_age=5)
    track.write_nowait(b"a")
    mock_clock.jump(100)
    track.write_nowait(b"b")
    assert kept(track) == [0, 1]
    mock_clock.jump(5)
    track.write_nowait(b"c")
    assert kept(track) == [0, 1, 2]
    mock_clock.jump(0.001)
    track.write_nowait(b"d")
    assert kept(track) == [1, 2, 3]
    mock_clock.jump(5)
    track.open_group()
    assert kept(track) == [2, 3, 4]


async def test_a_group_that_stays_open_does_not_keep_the_others(make_track, mock_clock):
    """Groups are evicted by count and by age also when an older one never ends; the open one itself is kept."""
    track = make_track(cache_groups=3, max_age=5)
    track.open_group()
    for _ in range(10):
        track.write_nowait(b"a")
    assert kept(track) == [0, 9, 10]
    mock_clock.jump(6)
    track.write_nowait(b"a")
    mock_clock.jump(6)
    track.write_nowait(b"a")
    assert kept(track) == [0, 11, 12]


async def test_a_pending_group_outlives_its_age(make_track, subscribe, mock_clock):
    """A live subscriber's pending group is not taken away for the cache's age, and does not keep the others."""
    track = make_track(max_age=1)
    reader = subscribe(track)
    for number in range(3):
        track.write_nowait(bytes([number]))
    reader.take(1)
    mock_clock.jump(2)
    track.write_nowait(b"x")
    assert kept(track) == [0, 2, 3]
    assert reader.read() == {0: [b"\0"], 2: [b"\2"], 3: [b"x"]}


@pytest.mark.parametrize("bounds", [{"cache_bytes": 4}, {"cache_groups": 2}])
async def test_an_evicted_group_is_dropped_for_a_live_subscriber(make_track, subscribe, bounds):
    """A group evicted by bytes or by count is dropped for cursors that have not read it, as TOO_FAR_BEHIND."""
    track = make_track(**bounds)
    reader = subscribe(track)
    for _ in range(4):
        track.write_nowait(b"ab")
    assert reader.pending == [2, 3]
    assert reader.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND), (1, StreamCode.TOO_FAR_BEHIND)]
    assert reader.cursor.backlog == 4


async def test_an_endless_group_is_bounded(make_track, subscribe):
    """A group that never ends keeps its newest frames only; a subscriber that keeps up gets all of it."""
    track = make_track(cache_bytes=100)
    along = subscribe(track)
    writer = track.open_group()
    for number in range(1000):
        writer.send_nowait(number.to_bytes(2, "big") * 5)
        assert kept_bytes(track) <= 100
        assert along.read() == {0: [number.to_bytes(2, "big") * 5]}
    group = state_of(track).group(0)
    assert group.length == 1000
    assert group.length - group.first == len(group.frames) >= 8
    assert group.size == kept_bytes(track)
    assert along.cursor.dropped_groups == 0


async def test_a_trimmed_group_is_dropped_for_a_reader_it_overtakes(make_track, subscribe):
    """For a live subscriber that stalls in an endless group the group is dropped, once; it gets the next group."""
    track = make_track(cache_bytes=10)
    reader = subscribe(track)
    writer = track.open_group()
    for _ in range(20):
        writer.send_nowait(b"12345")
    assert reader.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    assert reader.cursor.backlog == 0
    writer.finish()
    track.write_nowait(b"next")
    assert reader.read() == {1: [b"next"]}
    assert reader.cursor.dropped_groups == 1


async def test_late_joiners_of_a_trimmed_group(make_track, subscribe):
    """A group whose beginning was trimmed is dropped for a late subscriber, unless the subscriber asked for a frame
    that is kept, or its version can start at the first one that is."""
    track = make_track(cache_bytes=10)
    writer = track.open_group()
    for number in range(5):
        writer.send_nowait(bytes([number]) * 5)
    assert state_of(track).group(0).first == 3
    late = subscribe(track)
    replayed = subscribe(track, replay=True)
    inside = subscribe(track, start_group=0, start_frame=3)
    assert (late.pending, replayed.pending, inside.pending) == ([], [0], [0])
    assert late.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    before = subscribe(track, start_group=0, start_frame=2)
    assert before.pending == []
    assert before.cursor.take_dropped() == [(0, StreamCode.TOO_FAR_BEHIND)]
    assert replayed.cursor.pending[0].start == 3
    assert inside.read() == replayed.read() == {0: [b"\3" * 5, b"\4" * 5]}
    writer.send_nowait(b"more")
    writer.finish()
    assert inside.read() == replayed.read() == {0: [b"more"]}
    track.write_nowait(b"next")
    assert late.read() == replayed.read() == inside.read() == {1: [b"next"]}


async def test_the_cache_is_bounded_in_frames(make_track, subscribe):
    """Frames without a byte count too: whole groups leave, and an endless group is trimmed, past so many."""
    track = make_track(cache_frames=20)
    stalled = subscribe(track)
    writer = track.open_group()
    for _ in range(8):
        writer.send_nowait(b"")
    writer.finish()
    writer = track.open_group()
    for _ in range(12):
        writer.send_nowait(b"")
    assert kept(track) == [0, 1]
    writer.send_nowait(b"")
    assert kept(track) == [1]
    for _ in range(100):
        writer.send_nowait(b"")
        assert len(state_of(track).group(1).frames) <= 20
    assert len(state_of(track).group(1).frames) >= 15
    assert [sequence for sequence, _ in stalled.cursor.take_dropped()] == [0, 1]
    assert (stalled.cursor.backlog, stalled.cursor.backlog_frames) == (0, 0)


async def test_open_groups_are_trimmed_oldest_first(make_track):
    """With several open groups the older are trimmed first, and each keeps its newest frame."""
    track = make_track(cache_bytes=6)
    first, second = track.open_group(), track.open_group()
    for _ in range(3):
        first.send_nowait(b"a")
        second.send_nowait(b"b")
    assert kept_bytes(track) == 6
    second.send_nowait(b"bbb")
    assert [bytes(frame) for frame in state_of(track).group(0).frames] == [b"a"]
    assert [bytes(frame) for frame in state_of(track).group(1).frames] == [b"b", b"b", b"bbb"]


async def test_a_reliable_subscriber_keeps_what_it_needs(make_track, subscribe):
    """On a reliable track the cache drops groups that every subscriber has read, and no others."""
    track = make_track(delivery="reliable", cache_bytes=4, cache_groups=1)
    reader = subscribe(track)
    writer = track.open_group()
    for payload in (b"ab", b"cd", b"ef"):
        writer.send_nowait(payload)
    assert reader.take(0, 4) == [b"ab", b"cd"]
    writer.send_nowait(b"gh")
    assert [bytes(frame) for frame in state_of(track).group(0).frames] == [b"ef", b"gh"]
    writer.finish()
    track.write_nowait(b"ij")
    track.write_nowait(b"kl")
    assert reader.read() == {0: [b"ef", b"gh"], 1: [b"ij"], 2: [b"kl"]}
    track.write_nowait(b"mn")
    assert kept(track) == [3]
    assert reader.cursor.dropped_groups == 0


async def test_an_aborted_group_is_not_kept(make_track, subscribe):
    """A group that was reset is not kept, and its bytes make room for others."""
    track = make_track(cache_bytes=6)
    track.write_nowait(b"abc")
    writer = track.open_group()
    writer.send_nowait(b"def")
    writer.reset()
    track.write_nowait(b"ghi")
    assert kept(track) == [0, 2]
    assert subscribe(track, replay=True).pending == [0, 2]
