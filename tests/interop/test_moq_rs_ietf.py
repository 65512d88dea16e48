"""moq-rs on the IETF drafts from 17 on: each draft, transport and role, with contents compared."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.moq_rs import ROLES, SCHEMES, MoqRs, Pairing, needs_moq_rs, payloads

pytestmark = needs_moq_rs

DRAFTS = ["moqt-22", "moqt-21", "moqt-20", "moqt-19", "moqt-18", "moqt-17", "moqt-16", "moqt-15", "moqt-14"]
PAIRINGS = [Pairing(draft, scheme, role) for draft in DRAFTS for scheme in SCHEMES for role in ROLES]
each_pairing = pytest.mark.parametrize("pairing", PAIRINGS, ids=str)

FRAMES = 4
EXPECTED = {group: payloads(group, FRAMES) for group in range(5)}


@each_pairing
async def test_what_moq_rs_publishes_arrives_here(moq_rs: MoqRs, pairing: Pairing):
    """A broadcast of moq-rs is announced, every group that it writes arrives as it was written, and the track ends."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="bytes")
        async with ours.announcements("theirs") as announcements:
            announcement = await anext(announcements)
            assert (announcement.path, announcement.active) == ("theirs/out", True)
        received: dict[int, list[bytes]] = {}
        async with ours.subscribe("theirs/out", "bytes") as subscription:
            await subscription.wait_accepted()
            for sequence in EXPECTED:
                theirs.write("theirs/out", sequence, EXPECTED[sequence])
            theirs.tell("finish", path="theirs/out")
            async for group in subscription:
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]
        # moq-rs ends a track by a whole group more, which has no frame.
        assert {sequence: frames for sequence, frames in received.items() if frames} == EXPECTED


@each_pairing
async def test_what_we_publish_arrives_at_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs finds our broadcast, subscribes, reads every frame of every group, and its reader ends with our track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="bytes", max_age=60)
        await track.wait_subscribed()
        for frames in EXPECTED.values():
            async with track.open_group() as group:
                for frame in frames:
                    await group.send(frame)
        assert dict([await theirs.wait_frames("group") for _ in EXPECTED]) == EXPECTED
        track.finish()
        await theirs.wait("end", path="our/out")


@each_pairing
async def test_broadcasts_of_moq_rs_come_and_go(moq_rs: MoqRs, pairing: Pairing):
    """A broadcast that moq-rs announces while we listen is reported as active, then as inactive, and may return."""
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.announcements("theirs") as announcements:
        for _ in range(2):
            theirs.tell("publish", path="theirs/one", track="t")
            assert (await anext(announcements)).active
            theirs.tell("unannounce", path="theirs/one")
            assert not (await anext(announcements)).active


@each_pairing
async def test_a_track_that_moq_rs_does_not_have(moq_rs: MoqRs, pairing: Pairing):
    """The subscription is refused, and the session goes on."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="bytes")
        await theirs.settle()
        async with ours.subscribe("theirs/none", "bytes") as subscription:
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                await anext(subscription)


@each_pairing
async def test_we_join_a_group_of_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """A subscription that begins in the middle of a group gets all of it, and then the next one."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="bytes")
        theirs.write("theirs/out", 0, EXPECTED[0])
        theirs.write("theirs/out", 1, EXPECTED[1], do="begin")
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            assert (await anext(announcements)).active
        async with ours.subscribe("theirs/out", "bytes") as subscription:
            joined = await anext(subscription)
            assert (joined.sequence, joined.start_frame) == (1, 0)
            assert [bytes(await joined.receive()) for _ in EXPECTED[1]] == EXPECTED[1]
            theirs.write("theirs/out", 2, EXPECTED[2])
            following = await anext(subscription)
            assert (following.sequence, [bytes(frame) for frame in await following.read_all()]) == (2, EXPECTED[2])


@each_pairing
async def test_moq_rs_joins_a_group_of_ours(moq_rs: MoqRs, pairing: Pairing):
    """It reads the group from its first frame on, and its end, though nothing was left to send of it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    for sequence in (0, 1):
        async with track.open_group(sequence) as group:
            for frame in EXPECTED[sequence]:
                await group.send(frame)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="bytes", max_age=60)
        assert await theirs.wait_frames("group") == (1, EXPECTED[1])
        async with track.open_group() as group:
            for frame in EXPECTED[2]:
                await group.send(frame)
        assert await theirs.wait_frames("group") == (2, EXPECTED[2])


@each_pairing
async def test_fetches_both_ways(moq_rs: MoqRs, pairing: Pairing):
    """A past group, each from the other; and one that is not there."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    for sequence in (0, 1):
        async with track.open_group(sequence) as group:
            for frame in EXPECTED[sequence]:
                await group.send(frame)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("fetch", path="our/out", track="bytes", sequence=0)
        assert await theirs.wait_frames("fetched", path="our/out") == (0, EXPECTED[0])
        theirs.tell("publish", path="theirs/out", track="bytes")
        for sequence in (0, 1):
            theirs.write("theirs/out", sequence, EXPECTED[sequence])
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            assert (await anext(announcements)).active
        async with ours.fetch("theirs/out", "bytes", 0) as group:
            assert [bytes(frame) for frame in await group.read_all()] == EXPECTED[0]
        async with ours.fetch("theirs/out", "bytes", 77) as group:
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                await group.receive()
