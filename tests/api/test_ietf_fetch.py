"""Fetches of the IETF drafts: one group, a range of groups, what is not there, and a subscription's past."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
ONE_OF_EACH_WAY = pytest.mark.parametrize("version", ["moqt-18", "moqt-22"])

GROUPS = {0: [b"a", b"b"], 1: [b"", b"c" * 5000, b"d"], 3: [b"e"], 4: [b"f", b"g", b"h"]}
"""Group 2 was never published."""


@asynccontextmanager
async def published(version: str, **options):
    """Yields the client of a server that has published `GROUPS`, and the track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60, timescale=1000)
    for sequence, frames in GROUPS.items():
        async with track.open_group(sequence) as group:
            for index, frame in enumerate(frames):
                await group.send(frame, 10 * sequence + index)
    with trio.fail_after(20):
        async with session_pair(version, **options) as (client, server), server.publish("b", broadcast):
            yield client, track


@EACH_DRAFT
@pytest.mark.parametrize("sequence", GROUPS)
async def test_a_group(version, sequence):
    """Its frames, their numbers and their timestamps."""
    async with published(version) as (client, _), client.fetch("b", "t", sequence) as group:
        frames = await group.read_all()
    assert frames == GROUPS[sequence]
    assert [frame.timestamp for frame in frames] == [10 * sequence + index for index in range(len(frames))]
    assert [frame.object_id for frame in frames] == list(range(len(frames)))


@EACH_DRAFT
async def test_a_part_of_a_group(version):
    """From one frame to another, inclusive."""
    async with published(version) as (client, _):
        async with client.fetch("b", "t", 4, start_frame=1, end_frame=1) as group:
            assert (group.start_frame, await group.read_all()) == (1, [b"g"])
        async with client.fetch("b", "t", 1, start_frame=1) as group:
            assert await group.read_all() == GROUPS[1][1:]


@EACH_DRAFT
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_range(version, newest_first):
    """Several groups on one stream, in either order; one that never was is left out."""
    async with (
        published(version) as (client, _),
        client.fetch_range("b", "t", (0, 1), (4, 1), newest_first=newest_first) as frames,
    ):
        received = [(frame.group, frame.object_id, bytes(frame)) async for frame in frames]
        assert frames.missing == ()
    expected = [
        [(0, 1, b"b")],
        [(1, index, frame) for index, frame in enumerate(GROUPS[1])],
        [(3, 0, b"e")],
        [(4, 0, b"f"), (4, 1, b"g")],
    ]
    assert received == [frame for group in (reversed(expected) if newest_first else expected) for frame in group]


@EACH_DRAFT
async def test_a_range_into_the_future(version):
    """It ends with what there is."""
    async with published(version) as (client, _), client.fetch_range("b", "t", (4, 0), (1000, None)) as frames:
        assert [bytes(frame) async for frame in frames] == GROUPS[4]


@EACH_DRAFT
@pytest.mark.parametrize(("path", "track", "sequence"), [("b", "t", 5), ("b", "none", 0), ("none", "t", 0)])
async def test_what_is_not_there(version, path, track, sequence):
    """NotFound, and the session goes on."""
    async with published(version) as (client, _):
        async with client.fetch(path, track, sequence) as group:
            with pytest.raises(moqt.NotFound):
                await group.receive()
        async with client.fetch("b", "t", 3) as group:
            assert await group.read_all() == [b"e"]


@EACH_DRAFT
async def test_a_group_that_never_was(version):
    """A range between others without an object has no object."""
    async with published(version) as (client, _), client.fetch("b", "t", 2) as group:
        assert await group.read_all() == []


@EACH_DRAFT
async def test_groups_that_are_no_longer_kept(version):
    """A group that has left the cache is not found; a range marks it as missing, or before draft 16 is reset."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_groups=2))
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            for number in range(6):
                await track.write(b"%d" % number)
            async with client.fetch("b", "t", 1) as group:
                with pytest.raises(moqt.NotFound):
                    await group.receive()
            async with client.fetch_range("b", "t", (1, 0), (5, None)) as frames:
                if version in ("moqt-14", "moqt-15"):
                    with pytest.raises(moqt.StreamReset):
                        await frames.receive()
                    return
                received = [(frame.group, bytes(frame)) async for frame in frames]
                first = received[0][0]
                assert received == [(number, b"%d" % number) for number in range(first, 6)]
                assert first > 1
                assert [group for group, _ in frames.missing] == [first - 1]


@EACH_DRAFT
async def test_a_cancelled_read_loses_nothing(version):
    """A fetch may be read in pieces, and left in its middle."""
    async with published(version) as (client, _):
        async with client.fetch("b", "t", 4) as group:
            with trio.move_on_after(0) as scope:
                await group.receive()
            assert scope.cancelled_caught
            assert await group.receive() == b"f"
        async with client.fetch("b", "t", 0) as group:
            assert await group.read_all() == GROUPS[0]


@ONE_OF_EACH_WAY
async def test_more_than_the_window(version):
    """A fetch that is not read holds up nothing but itself, and the rest comes when it is read."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(30):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            frames = [bytes((number,)) * 100_000 for number in range(30)]
            async with track.open_group() as group:
                for frame in frames:
                    await group.send(frame)
            await track.write(b"next")
            async with client.fetch("b", "t", 0) as large:
                await trio.testing.wait_all_tasks_blocked()
                held = client.statistics().transport
                assert held is not None
                async with client.fetch("b", "t", 1) as small:
                    assert await small.read_all() == [b"next"]
                assert [bytes(frame) for frame in await large.read_all()] == frames


@ONE_OF_EACH_WAY
async def test_an_empty_group_and_an_empty_track(version):
    """Nothing was published there."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group(),
            client.fetch("b", "t", 0) as group,
        ):
            with pytest.raises(moqt.NotFound):
                await group.receive()


@ONE_OF_EACH_WAY
async def test_a_reply_that_nothing_asked_for(version):
    """Its stream is refused, and nothing else."""
    async with published(version) as (client, track), client.subscribe("b", "t") as subscription:
        await track.wait_subscribed()
        reader = await anext(subscription)
        assert await reader.read_all() == GROUPS[4]
        # A fetch stream for a request of the client's that is none: the server's end is the peer here.
        stream = await client._context.connection.open_uni()
        stream.write(bytes.fromhex("0563") + b"x" * 100)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(moqt.StreamReset) as caught:
            stream.write(b"more")
        assert caught.value.code == StreamCode.CANCELLED
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]


async def test_a_range_in_another_version():
    """It is said at once."""
    async with session_pair("moq-lite-06") as (client, _):
        with pytest.raises(moqt.LocalProtocolError, match="moq-lite-06 can fetch single groups only"):
            client.fetch_range("b", "t", (0, 0), (1, None))


@ONE_OF_EACH_WAY
async def test_a_range_that_ends_before_it_starts(version):
    async with published(version) as (client, _):
        with pytest.raises(moqt.LocalProtocolError, match="ends at"):
            client.fetch_range("b", "t", (2, 0), (1, None))


@EACH_DRAFT
async def test_a_range_that_begins_behind_its_group(version):
    """It has no frame, and ends where it begins: a publisher may not answer with an end before the start."""
    async with published(version) as (client, _), client.fetch("b", "t", 1, start_frame=10) as group:
        assert await group.read_all() == []
        assert client.closed is None


@pytest.mark.parametrize("version", DRAFTS[2:])
async def test_a_group_of_the_past_that_is_still_written(version):
    """What is not sent of it is marked as unknown, as it may still come."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group() as group,
        ):
            await group.send(b"0")
            await track.write(b"next")
            async with client.fetch_range("b", "t", (0, 0), (1, None)) as frames:
                received = [(frame.group, bytes(frame)) async for frame in frames]
                assert received == [(0, b"0"), (1, b"next")]
                assert [place[0] for place in frames.missing] == [0]


WITHOUT_MARKS = pytest.mark.parametrize(
    ("version", "newest_first"),
    [("moqt-14", False), ("moqt-15", False), ("moqt-14", True), ("moqt-18", True), ("moqt-22", True)],
)
"""Drafts 14 and 15 cannot mark what is unknown, nor can any draft where the newest group comes first."""


@asynccontextmanager
async def still_written(version: str, newest_first: bool, **options):
    """Yields a fetch of groups 0 and 1, the track, and group 0, which is still written, in two subgroups."""
    broadcast = moqt.Broadcast(**options)
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            group = track.open_group(0, subgroup=0)
            layer = track.open_group(0, subgroup=1)
            await group.send(b"0", object_id=0)
            await track.write(b"next")
            layer.finish()
            yield client.fetch_range("b", "t", (0, 0), (1, None), newest_first=newest_first), track, group


async def read_some(frames, count: int) -> list[tuple[int, int, bytes]]:
    """Returns so many frames: group, object id and payload of each."""
    received: list[tuple[int, int, bytes]] = []
    while len(received) < count:
        frame = await anext(frames)
        received.append((frame.group, frame.object_id, bytes(frame)))
    return received


@WITHOUT_MARKS
async def test_a_group_that_is_still_written_is_waited_for(version, newest_first):
    """What comes of it arrives as it comes, and nothing is said to be missing."""
    async with still_written(version, newest_first) as (fetch, track, group), fetch as frames:
        head = [(1, 0, b"next"), (0, 0, b"0")] if newest_first else [(0, 0, b"0")]
        assert await read_some(frames, len(head)) == head
        # Nothing is busy while it waits.
        await trio.testing.wait_all_tasks_blocked()
        await group.send(b"2", object_id=2)
        assert await read_some(frames, 1) == [(0, 2, b"2")]
        late = track.open_group(0, subgroup=2)
        await late.send(b"3", object_id=3)
        late.finish()
        assert await read_some(frames, 1) == [(0, 3, b"3")]
        await trio.testing.wait_all_tasks_blocked()
        group.finish()
        assert [bytes(frame) async for frame in frames] == ([] if newest_first else [b"next"])
        assert not frames.missing
        await trio.testing.wait_all_tasks_blocked()
        assert track.subscribers == 0


@WITHOUT_MARKS
@pytest.mark.parametrize("end", ["group", "track", "cache"])
async def test_a_group_that_is_waited_for_and_lost(version, newest_first, end):
    """The reader is told, as what was to come is not what does not exist."""
    limits = moqt.Limits(cache_bytes=1000)
    async with still_written(version, newest_first, limits=limits) as (fetch, track, group), fetch as frames:
        await read_some(frames, 1 + newest_first)
        await trio.testing.wait_all_tasks_blocked()
        if end == "group":
            group.reset()
        elif end == "track":
            track.abort()
        else:
            # More than is kept, before the reader has a turn.
            for number in range(2, 100):
                group.send_nowait(bytes(100), object_id=number)
        with pytest.raises(moqt.StreamReset):
            async for _ in frames:
                pass
        assert track.subscribers == 0


@WITHOUT_MARKS
async def test_leaving_while_a_group_is_waited_for(version, newest_first):
    """Nothing stays behind of a reader that left."""
    async with still_written(version, newest_first) as (fetch, track, _):
        async with fetch as frames:
            await read_some(frames, 1 + newest_first)
            await trio.testing.wait_all_tasks_blocked()
            assert track.subscribers == 1
        await trio.testing.wait_all_tasks_blocked()
        assert track.subscribers == 0
