"""One group that is asked for by its number, in both directions: each version, transport and role.

moq-lite-01 and -02 have no FETCH; -03 and -04 have it, but moq-rs neither serves nor sends it there. The tests of the
bytes below show this.
"""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from tests.interop.moq_rs import MoqRs, Pairing, needs_moq_rs, pairings, payloads
from tests.interop.raw_link import (
    ANNOUNCE,
    ANNOUNCES_X,
    FETCH,
    SUBSCRIBE,
    TRACK,
    TRACK_INFO,
    prefixed,
    raw_link,
    text,
)

pytestmark = needs_moq_rs

GROUPS, FRAMES = 3, 4
EXPECTED = {group: payloads(group, FRAMES) for group in range(GROUPS)}


@pairings(5, 6)
async def test_we_fetch_from_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """Each group that moq-rs keeps comes whole and byte for byte, the old ones too; one that it does not have raises
    `NotFound`, and the session goes on."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        for sequence, frames in EXPECTED.items():
            theirs.write("theirs/out", sequence, frames)
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            await anext(announcements)
        received = {}
        for sequence in EXPECTED:
            async with ours.fetch("theirs/out", "t", sequence) as group:
                received[sequence] = [bytes(frame) async for frame in group]
        assert received == EXPECTED
        with pytest.raises(moqt.NotFound):
            async with ours.fetch("theirs/out", "t", 77) as group:
                await anext(group)
        async with ours.fetch("theirs/out", "t", 0) as group:
            assert [bytes(frame) async for frame in group] == EXPECTED[0]


@pairings(6)
async def test_we_fetch_a_part_from_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-06 moq-rs sends the frames that we name of a group, from the first to the last, and no others."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        theirs.write("theirs/out", 1, EXPECTED[1])
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            await anext(announcements)
        for start, end in [(0, 0), (1, 2), (2, None), (3, 3), (1, 99)]:
            async with ours.fetch("theirs/out", "t", 1, start_frame=start, end_frame=end) as group:
                received = [bytes(frame) async for frame in group]
            assert received == EXPECTED[1][start : None if end is None else end + 1]


@pairings(5, 6)
async def test_moq_rs_fetches_from_us(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs gets each group that we keep as it was written; one that we do not have fails there as not found."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for sequence, frames in EXPECTED.items():
        async with track.open_group(sequence) as group:
            for frame in frames:
                await group.send(frame)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        for sequence in EXPECTED:
            theirs.tell("fetch", path="our/out", track="t", sequence=sequence)
            assert await theirs.wait_frames("fetched", path="our/out") == (sequence, EXPECTED[sequence])
        theirs.tell("fetch", path="our/out", track="t", sequence=77)
        failure = await theirs.wait("failed", path="our/out", sequence=77)
        assert (failure["scope"], failure["code"]) == ("STREAM", StreamCode.NOT_FOUND)
        theirs.tell("fetch", path="our/out", track="t", sequence=0)
        assert await theirs.wait_frames("fetched", path="our/out") == (0, EXPECTED[0])


@pairings(3, 4)
async def test_moq_rs_resets_our_fetch_in_older_versions(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-03 and -04 a fetch fails here with moq-rs's code 1, although it has the group; a subscription to
    it works on the same session."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        theirs.write("theirs/out", 0, EXPECTED[0])
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            await anext(announcements)
        with pytest.raises(moqt.StreamReset) as refusal:
            async with ours.fetch("theirs/out", "t", 0) as group:
                await anext(group)
        assert (refusal.value.code, refusal.value.by_peer) == (StreamCode.CANCELLED, True)
        async with ours.subscribe("theirs/out", "t", max_age=60) as subscription:
            group = await anext(subscription)
            assert [bytes(frame) async for frame in group] == EXPECTED[0]


@pairings(1, 2)
async def test_we_know_no_fetch_where_the_version_has_none(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-01 and -02 a fetch is refused by our own side before anything is sent."""
    async with pairing.sessions(moq_rs) as (ours, _):
        with pytest.raises(moqt.LocalProtocolError, match="has no fetch"):
            ours.fetch("theirs/out", "t", 0)


@pairings(1, 2, 3, 4)
async def test_moq_rs_answers_a_fetch_stream_with_a_reset(moq_rs: MoqRs, pairing: Pairing):
    """Up to moq-lite-04 moq-rs answers a stream of type 3 by RESET_STREAM 1 and STOP_SENDING 0, without one byte of
    the group that it has, and whether or not the version knows the type; its announce stream goes on."""
    async with raw_link(moq_rs, pairing) as (link, theirs):
        theirs.tell("publish", path="x", track="t")
        theirs.write("x", 7, [b"frame"])
        await theirs.settle()
        stream = await link.open(bytes([FETCH]) + prefixed(text("x") + text("t") + b"\x7f\x07"))
        await link.until(lambda: stream.reset is not None and stream.stopped is not None)
        assert (stream.data, stream.finished, stream.reset, stream.stopped) == (b"", False, 1, 0)
        exclude = b"\x00" if pairing.number == 4 else b""
        announcements = await link.open(bytes([ANNOUNCE]) + prefixed(text("") + exclude))
        await link.until(lambda: text("x") in announcements.data)


@pairings(1, 2, 3, 4)
async def test_moq_rs_sends_no_fetch_in_older_versions(moq_rs: MoqRs, pairing: Pairing):
    """Up to moq-lite-04 moq-rs's own fetch fails without a stream: the next stream that it opens is that of the next
    command, a subscription, and none is of type 3."""
    async with raw_link(moq_rs, pairing) as (link, theirs):
        announcements = await link.wait_bidirectional(ANNOUNCE)
        announcements.write(ANNOUNCES_X[pairing.number])
        theirs.tell("fetch", path="x", track="t", sequence=7)
        failure = await theirs.wait("failed", path="x", sequence=7)
        assert (failure["code"], failure["text"]) == (None, "NotFound: ")
        theirs.tell("subscribe", path="x", track="t", max_age=60)
        subscription = await link.wait_bidirectional(SUBSCRIBE)
        assert text("x") + text("t") in subscription.data
        assert link.bidirectional(FETCH) == []


@pairings(5, 6)
async def test_moq_rs_always_fetches_whole_groups(moq_rs: MoqRs, pairing: Pairing):
    """The bytes of moq-rs's FETCH: broadcast, track, priority 0 and the group; in moq-lite-06 also a first frame of
    0 and no last one, which its interface cannot change."""
    async with raw_link(moq_rs, pairing) as (link, theirs):
        announcements = await link.wait_bidirectional(ANNOUNCE)
        announcements.write(ANNOUNCES_X[pairing.number])
        theirs.tell("fetch", path="x", track="t", sequence=7)
        (await link.wait_bidirectional(TRACK)).write(TRACK_INFO[pairing.number], fin=True)
        fetch = await link.wait_bidirectional(FETCH)
        frames = b"\x00\x00" if pairing.number == 6 else b""
        assert fetch.data == bytes([FETCH]) + prefixed(text("x") + text("t") + b"\x00\x07" + frames)
        fetch.write(b"\x00" + text("frame"), fin=True)
        assert await theirs.wait_frames("fetched", path="x") == (7, [b"frame"])
