"""What one side publishes arrives on the other, byte for byte, and ends there: each version, transport and role."""

from __future__ import annotations

from contextlib import AsyncExitStack

import moqt_trio as moqt
from tests.interop.moq_rs import PAIRINGS, MoqRs, MoqRsSession, Pairing, each_pairing, needs_moq_rs, pairings, payloads

pytestmark = needs_moq_rs

GROUPS, FRAMES = 5, 4
EXPECTED = {group: payloads(group, FRAMES) for group in range(GROUPS)}


@each_pairing
async def test_what_moq_rs_publishes_arrives_here(moq_rs: MoqRs, pairing: Pairing):
    """A broadcast that moq-rs publishes is announced, and every frame of every group of its track arrives as it was
    written: of the newest group at the time of the subscription, and of those that it writes later."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="bytes")
        theirs.write("theirs/out", 0, EXPECTED[0])
        async with ours.announcements("theirs") as announcements:
            announcement = await anext(announcements)
            assert (str(announcement.path), announcement.active) == ("theirs/out", True)
        received: dict[int, list[bytes]] = {}
        async with ours.subscribe("theirs/out", "bytes", max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) async for frame in group]
                if len(received) == 1:
                    for sequence in range(1, GROUPS):
                        theirs.write("theirs/out", sequence, EXPECTED[sequence])
                if len(received) == GROUPS:
                    break
        assert received == EXPECTED


@each_pairing
async def test_what_we_publish_arrives_at_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs finds our broadcast, subscribes, and reads every frame of every group as it was written."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="bytes", max_age=60)
        await track.wait_subscribed()
        for sequence in range(GROUPS):
            async with track.open_group() as group:
                for frame in EXPECTED[sequence]:
                    await group.send(frame)
        assert dict([await theirs.wait_frames("group") for _ in range(GROUPS)]) == EXPECTED


@each_pairing
async def test_a_track_that_moq_rs_ends_ends_here(moq_rs: MoqRs, pairing: Pairing):
    """Iteration over a track that moq-rs finishes comes to a clean end, with its last group delivered."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="bytes")
        theirs.write("theirs/out", 0, EXPECTED[0])
        await theirs.settle()
        received = {}
        async with ours.subscribe("theirs/out", "bytes", max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) async for frame in group]
                if len(received) == 1:
                    theirs.write("theirs/out", 1, EXPECTED[1])
                    theirs.tell("finish", path="theirs/out")
        assert received == {0: EXPECTED[0], 1: EXPECTED[1]}


async def publish_and_end(stack: AsyncExitStack, moq_rs: MoqRs, pairing: Pairing) -> tuple[moqt.Session, MoqRsSession]:
    """Starts a session in which moq-rs reads one group of a track of ours that ends then; returns both ends."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    ours, theirs = await stack.enter_async_context(pairing.sessions(moq_rs))
    await stack.enter_async_context(ours.publish("our/out", broadcast))
    theirs.tell("subscribe", path="our/out", track="bytes", max_age=60)
    await track.wait_subscribed()
    async with track.open_group() as group:
        for frame in EXPECTED[0]:
            await group.send(frame)
    assert await theirs.wait_frames("group") == (0, EXPECTED[0])
    track.finish()
    return ours, theirs


@pairings(5, 6)
async def test_a_track_that_we_end_ends_at_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """From moq-lite-05 on SUBSCRIBE_END says where a track ends, and moq-rs's reader ends at once."""
    async with AsyncExitStack() as stack:
        _, theirs = await publish_and_end(stack, moq_rs, pairing)
        await theirs.wait("end", path="our/out")


async def test_a_track_that_we_end_ends_at_moq_rs_in_older_versions_too(moq_rs: MoqRs):
    """Up to moq-lite-04 our FIN alone ends a track, and moq-rs's reader ends five seconds after it. All pairings wait
    for it together."""
    async with AsyncExitStack() as stack:
        ends = [await publish_and_end(stack, moq_rs, pairing) for pairing in PAIRINGS if pairing.number <= 4]
        for _, theirs in ends:
            await theirs.wait("end", path="our/out")
        assert [ours.closed for ours, _ in ends] == [None] * len(ends)
