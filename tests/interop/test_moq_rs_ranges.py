"""Subscriptions to a range of groups and frames, in both directions: moq-lite-03 is the first to have them."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.moq_rs import MoqRs, Pairing, check_session_lives, needs_moq_rs, pairings, payloads
from tests.interop.raw_link import SUBSCRIBE, prefixed, raw_link, text

pytestmark = needs_moq_rs

GROUPS, FRAMES = 6, 4
EXPECTED = {group: payloads(group, FRAMES) for group in range(GROUPS)}


async def read_groups(subscription: moqt.Subscription, count: int) -> dict[int, list[bytes]]:
    """Reads so many groups."""
    received = {}
    for _ in range(count):
        group = await anext(subscription)
        received[group.sequence] = [bytes(frame) async for frame in group]
    return received


@pairings(3, 4, 5, 6)
async def test_we_subscribe_to_a_range_of_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs sends the groups that we name, past ones too, and no others: when an update moves the end by one group,
    that one is the next to come."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        for sequence, frames in EXPECTED.items():
            theirs.write("theirs/out", sequence, frames)
        await theirs.settle()
        async with ours.subscribe("theirs/out", "t", max_age=60, start_group=1, end_group=3) as subscription:
            assert await read_groups(subscription, 3) == {group: EXPECTED[group] for group in (1, 2, 3)}
            await subscription.update(end_group=4)
            assert await read_groups(subscription, 1) == {4: EXPECTED[4]}
        await check_session_lives(ours, theirs)


@pairings(3, 4, 5, 6)
async def test_a_range_of_moq_rs_comes_to_its_end(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs leaves a subscription open when its range is over; here iteration ends all the same."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        for sequence, frames in EXPECTED.items():
            theirs.write("theirs/out", sequence, frames)
        await theirs.settle()
        async with ours.subscribe("theirs/out", "t", max_age=60, start_group=2, end_group=4) as subscription:
            received = {group.sequence: [bytes(frame) async for frame in group] async for group in subscription}
        assert received == {group: EXPECTED[group] for group in (2, 3, 4)}
        await check_session_lives(ours, theirs)


@pairings(6)
async def test_we_subscribe_to_a_range_of_frames(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-06 moq-rs begins the first group and ends the last one at the frames that we name."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        for sequence, frames in EXPECTED.items():
            theirs.write("theirs/out", sequence, frames)
        await theirs.settle()
        wanted = ours.subscribe("theirs/out", "t", max_age=60, start_group=1, start_frame=2, end_group=3, end_frame=0)
        async with wanted as subscription:
            received = await read_groups(subscription, 3)
        assert received == {1: EXPECTED[1][2:], 2: EXPECTED[2], 3: EXPECTED[3][:1]}


@pairings(1, 2)
async def test_versions_without_ranges_refuse_them(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-01 and -02 our own side refuses a range before anything is sent."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        for wanted in ({"start_group": 0}, {"end_group": 3}):
            with pytest.raises(moqt.LocalProtocolError, match="range"):
                async with ours.subscribe("theirs/out", "t", **wanted):
                    pass
        await check_session_lives(ours, theirs)


@pairings(3, 4, 5, 6)
async def test_moq_rs_subscribes_to_a_range_of_ours(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs gets the past groups that it names, as they were written."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for sequence, frames in EXPECTED.items():
        async with track.open_group(sequence) as group:
            for frame in frames:
                await group.send(frame)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="t", max_age=60, start=1, end=3)
        received = dict([await theirs.wait_frames("group", path="our/out") for _ in range(2)])
        assert received == {1: EXPECTED[1], 2: EXPECTED[2]}
        await check_session_lives(ours, theirs)


@pairings(3, 4, 5, 6)
async def test_the_end_of_a_range_is_not_the_end_of_our_track(moq_rs: MoqRs, pairing: Pairing):
    """Once moq-rs has the groups of a range, a later subscription of its session still gets new groups: before
    moq-lite-05 it takes a publisher's FIN for the end of the track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for frames in EXPECTED.values():
        async with track.open_group() as group:
            for frame in frames:
                await group.send(frame)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="t", max_age=60, start=1, end=3)
        received = dict([await theirs.wait_frames("group", path="our/out") for _ in range(2)])
        assert received.keys() == {1, 2}
        theirs.tell("subscribe", path="our/out", track="t", max_age=60)
        await theirs.wait_frames("group", path="our/out")
        await track.write(b"a new one")
        sequence = -1
        while sequence < GROUPS:
            sequence, frames = await theirs.wait_frames("group", path="our/out")
        assert (sequence, frames) == (GROUPS, [b"a new one"])
        await check_session_lives(ours, theirs)


RANGES = {
    5: bytes.fromhex("7f 00 8000ea60 02 04"),
    6: bytes.fromhex("7f 8000ea60 01 04 00 00"),
}
"""By version: the end of a SUBSCRIBE with priority 127 and an age of a minute for groups 1 to 3, inclusive."""


@pairings(5, 6)
async def test_moq_rs_keeps_a_range_open_and_tells_the_end_of_the_track(moq_rs: MoqRs, pairing: Pairing):
    """On a track of six groups that has ended, moq-rs answers a SUBSCRIBE for groups 1 to 3 with OK 1, END 6 and
    these three groups, and does not finish the stream: an update for one group more is answered by that group."""
    async with raw_link(moq_rs, pairing) as (link, theirs):
        theirs.tell("publish", path="x", track="t")
        for sequence in range(GROUPS):
            theirs.write("x", sequence, [b"frame"])
        theirs.tell("finish", path="x")
        await theirs.settle()
        asked = b"\x00" + text("x") + text("t") + RANGES[pairing.number]
        stream = await link.open(bytes([SUBSCRIBE]) + prefixed(asked))

        def finished_groups() -> list[int]:
            streams = [item for item in link.unidirectional(0) if item.finished]
            # The stream's type, the length of GROUP, the subscription's id, and the sequence.
            return sorted(item.data[3] for item in streams)

        await link.until(lambda: finished_groups() == [1, 2, 3])
        assert stream.data == bytes.fromhex("00 01 01 01 01 06")
        assert not stream.finished
        further = RANGES[pairing.number].replace(b"\x04", b"\x05")
        stream.write(prefixed(further))
        await link.until(lambda: finished_groups() == [1, 2, 3, 4])


TOO_FAR_BEHIND = 5


@pairings(1, 2, 3, 4, 5, 6)
async def test_moq_rs_comes_late_to_a_group_that_outgrew_the_cache(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs is told that it does not get all of the group, and gets the next one; in moq-lite-01 and -02, which can't
    tell of a group, its subscription fails. In moq-lite-06 it takes the part that is kept for a group it is too late
    for."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_frames=64))
    track = broadcast.track("t", max_age=60)
    long = track.open_group()
    for number in range(200):
        await long.send(b"%d" % number)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="t", max_age=60)
        if pairing.number <= 2:
            await theirs.wait("failed", path="our/out", code=TOO_FAR_BEHIND)
            return
        await track.wait_subscribed()
        if pairing.number == 6:
            await theirs.wait("incomplete", sequence=0, code=TOO_FAR_BEHIND)
        await track.write(b"next")
        assert await theirs.wait_frames("group", path="our/out") == (1, [b"next"])
