"""What one side publishes arrives on the other, byte for byte, and ends there: each version, transport and role."""

from __future__ import annotations

from contextlib import AsyncExitStack

import moqt_trio as moqt
from tests.interop.wheel import PAIRINGS, Pairing, Wheel, WheelSession, each_pairing, needs_wheel, pairings, payloads

pytestmark = needs_wheel

GROUPS, FRAMES = 5, 4
EXPECTED = {group: payloads(group, FRAMES) for group in range(GROUPS)}


@each_pairing
async def test_what_the_wheel_publishes_arrives_here(wheel: Wheel, pairing: Pairing):
    """A broadcast that the wheel publishes is announced, and every frame of every group of its track arrives as it was
    written: of the newest group at the time of the subscription, and of those that it writes later."""
    async with pairing.sessions(wheel) as (ours, theirs):
        theirs.tell("publish", path="wheel/out", track="bytes")
        theirs.write("wheel/out", 0, EXPECTED[0])
        async with ours.announcements("wheel") as announcements:
            announcement = await anext(announcements)
            assert (str(announcement.path), announcement.active) == ("wheel/out", True)
        received: dict[int, list[bytes]] = {}
        async with ours.subscribe("wheel/out", "bytes", max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) async for frame in group]
                if len(received) == 1:
                    for sequence in range(1, GROUPS):
                        theirs.write("wheel/out", sequence, EXPECTED[sequence])
                if len(received) == GROUPS:
                    break
        assert received == EXPECTED


@each_pairing
async def test_what_we_publish_arrives_at_the_wheel(wheel: Wheel, pairing: Pairing):
    """The wheel finds our broadcast, subscribes, and reads every frame of every group as it was written."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    async with pairing.sessions(wheel) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="bytes", max_age=60)
        await track.wait_subscribed()
        for sequence in range(GROUPS):
            async with track.open_group() as group:
                for frame in EXPECTED[sequence]:
                    await group.send(frame)
        assert dict([await theirs.wait_frames("group") for _ in range(GROUPS)]) == EXPECTED


@each_pairing
async def test_a_track_that_the_wheel_ends_ends_here(wheel: Wheel, pairing: Pairing):
    """Iteration over a track that the wheel finishes comes to a clean end, with its last group delivered."""
    async with pairing.sessions(wheel) as (ours, theirs):
        theirs.tell("publish", path="wheel/out", track="bytes")
        theirs.write("wheel/out", 0, EXPECTED[0])
        await theirs.settle()
        received = {}
        async with ours.subscribe("wheel/out", "bytes", max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) async for frame in group]
                if len(received) == 1:
                    theirs.write("wheel/out", 1, EXPECTED[1])
                    theirs.tell("finish", path="wheel/out")
        assert received == {0: EXPECTED[0], 1: EXPECTED[1]}


async def publish_and_end(stack: AsyncExitStack, wheel: Wheel, pairing: Pairing) -> tuple[moqt.Session, WheelSession]:
    """Starts a session whose wheel reads one group of a track of ours that ends then; returns both ends."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    ours, theirs = await stack.enter_async_context(pairing.sessions(wheel))
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
async def test_a_track_that_we_end_ends_at_the_wheel(wheel: Wheel, pairing: Pairing):
    """From moq-lite-05 on the wheel is told where a track ends, and its reader ends at once."""
    async with AsyncExitStack() as stack:
        _, theirs = await publish_and_end(stack, wheel, pairing)
        await theirs.wait("end", path="our/out")


async def test_a_track_that_we_end_ends_at_the_wheel_in_older_versions_too(wheel: Wheel):
    """Up to moq-lite-04 no message tells a track's end: our FIN does, which the wheel believes after five seconds. All
    of them wait for it together."""
    async with AsyncExitStack() as stack:
        ends = [await publish_and_end(stack, wheel, pairing) for pairing in PAIRINGS if pairing.number <= 4]
        for _, theirs in ends:
            await theirs.wait("end", path="our/out")
        assert [ours.closed for ours, _ in ends] == [None] * len(ends)
