"""The older frames of a long group are packed: readers see the same frames, and they take little memory."""

from __future__ import annotations

import tracemalloc

import pytest

from moqt_trio.frame import Frame
from moqt_trio.model.group import Group
from moqt_trio.model.packed import PackedFrames
from moqt_trio.model.track import state_of

FRAMES = [
    [Frame(b"", 0)],
    [Frame(b"a", 7), Frame(b"", 7), Frame(b"bcd", 9)],
    [Frame(bytes(300), 5), Frame(b"x", 4), Frame(bytes(70_000), 2**62 - 1)],
]


@pytest.mark.parametrize("frames", FRAMES)
def test_frames_come_back(frames):
    """Each frame is what it was, its timestamp included, in whatever order the timestamps are."""
    run = PackedFrames(100, frames)
    assert [run[index] for index in range(len(run))] == frames
    assert [run[index].timestamp for index in range(len(run))] == [frame.timestamp for frame in frames]
    assert run.first_timestamp == frames[0].timestamp


@pytest.mark.parametrize("frames", FRAMES)
def test_bytes_between(frames):
    """The payload bytes of any part are those of its frames."""
    run = PackedFrames(100, frames)
    for start in range(len(frames) + 1):
        for stop in range(len(frames) + 1):
            assert run.bytes_between(start, stop) == sum(map(len, frames[start:stop]))


def long_group(track, count):
    """Open a group of so many frames, each of which says its number."""
    writer = track.open_group()
    for number in range(count):
        writer.send_nowait(b"%d" % number, number)
    return writer


@pytest.mark.parametrize("start_frame", [0, 1, Group.RUN - 1, Group.RUN, 3 * Group.RUN + 7, 5 * Group.RUN])
async def test_a_reader_of_a_long_group(make_track, subscribe, start_frame):
    """A late subscriber gets each frame of a long group once and in order, from where it starts to the end."""
    count = 5 * Group.RUN + 9
    track = make_track()
    writer = long_group(track, count)
    assert state_of(track).group(0).packed
    reader = subscribe(track, start_group=0, start_frame=start_frame)
    entry = reader.cursor.pending[0]
    assert entry.waiting == sum(len(b"%d" % number) for number in range(start_frame, count))
    writer.finish()
    taken = []
    while 0 in reader.cursor.pending:
        frames, _ = reader.cursor.take(entry, 10**6)
        assert frames
        taken += frames
    assert [(frame, frame.timestamp) for frame in taken] == [
        (b"%d" % number, number) for number in range(start_frame, count)
    ]


async def test_a_range_that_ends_among_packed_frames(make_track, subscribe):
    """A range that ends among the packed frames is finished there."""
    track = make_track()
    long_group(track, 5 * Group.RUN)
    reader = subscribe(track, start_group=0, end_group=0, start_frame=10, end_frame=Group.RUN + 1)
    entry = reader.cursor.pending[0]
    assert reader.take(0) == [b"%d" % number for number in range(10, Group.RUN)]
    assert entry.left == 2
    assert reader.take(0) == [b"%d" % number for number in range(Group.RUN, Group.RUN + 2)]
    assert reader.pending == []


async def test_a_part_of_a_packed_frame(make_track, subscribe):
    """A packed frame may be taken in parts."""
    track = make_track()
    writer = long_group(track, Group.LONG)
    entry = (reader := subscribe(track, start_group=0, start_frame=100)).cursor.pending[0]
    entry.offset = 0
    assert reader.cursor.take_part(entry, 1) == (b"100", 1, False)
    assert reader.cursor.take_part(entry, 9) == (b"100", 2, False)
    assert reader.take(0)[0] == b"101"
    writer.finish()


async def test_the_cache_lets_go_of_whole_runs(make_track, caplog):
    """A group that exceeds the cache loses its oldest runs, and the cache stays within its bytes."""
    track = make_track(cache_bytes=64 * 1024)
    long_group(track, 20_000)
    group = state_of(track).group(0)
    assert 0 < group.first < group.tail
    assert group.first % Group.RUN == 0
    assert group.frame(group.first) == b"%d" % group.first
    assert group.first_timestamp == group.first
    assert state_of(track).size == group.size <= 64 * 1024
    assert "longer than the cache" in caplog.text


async def test_what_a_small_frame_takes(make_track):
    """The frames of an endless group take less than twice their twelve bytes each, and no object."""
    track = make_track()
    writer = track.open_group()
    tracemalloc.start()
    try:
        taken = []
        # Both times as many frames are left as objects.
        for _ in range(2):
            for number in range(20 * Group.RUN):
                writer.send_nowait(bytes(12), number * 4000)
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert taken[1] - taken[0] < 24 * 20 * Group.RUN


async def test_large_frames_are_not_packed(make_track, subscribe):
    """An endless group of large frames is trimmed by frames: a live reader that lags a little keeps its group."""
    track = make_track(cache_bytes=1600 * 1024)
    writer = track.open_group()
    reader = subscribe(track)
    entry = reader.cursor.pending[0]
    for number in range(4000):
        writer.send_nowait(bytes(6000 if number < 300 else 100), number)
        if number >= 250 and entry.waiting > 500_000:
            reader.take(0, 6000)
    assert state_of(track).group(0).first > 0
    assert reader.pending == [0]
