"""Subscriptions to a range of groups: where they end, and how they go on."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

pytestmark = pytest.mark.parametrize(
    "version", ["moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06", "moq-lite-06-wip"]
)


async def write_groups(track: moqt.Track, *sequences: int) -> None:
    """Writes groups of one frame each."""
    for sequence in sequences:
        async with track.open_group(sequence) as group:
            await group.send(b"%d" % sequence)


async def test_a_range_ends_iteration_and_not_the_subscription(version):
    """Iteration ends behind the last group asked for; an update that moves the end lets it go on, up to the new one."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(8))
        async with client.subscribe("b", "t", start_group=2, end_group=4, max_age=60) as subscription:
            with trio.fail_after(5):
                assert sorted([group.sequence async for group in subscription]) == [2, 3, 4]
            assert server.statistics().subscriptions_served == 1
            await subscription.update(end_group=6)
            with trio.fail_after(5):
                assert sorted([group.sequence async for group in subscription]) == [5, 6]
            with pytest.raises(trio.EndOfChannel):
                await subscription.receive()


async def test_a_range_that_the_track_has_yet_to_reach(version):
    """Iteration waits for the last group asked for, and ends as soon as it was read."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    received: list[int] = []

    async def read(session: moqt.Session) -> None:
        async with session.subscribe("b", "t", start_group=0, end_group=2, max_age=60) as subscription:
            received.extend([group.sequence async for group in subscription])

    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, client)
                await track.wait_subscribed()
                for sequence in range(4):
                    await write_groups(track, sequence)
                    await trio.testing.wait_all_tasks_blocked()
    assert received == [0, 1, 2]


@pytest.mark.parametrize(("written", "last"), [((1, 2, 4, 6), 5), ((1, 2, 4, 5), 5), ((1, 2, 4, 9), 7)])
async def test_groups_that_never_were(version, written, last):
    """A range with gaps ends, too: the publisher says which of its groups there will never be."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *written)
        async with client.subscribe("b", "t", start_group=1, end_group=last, max_age=60) as subscription:
            with trio.fail_after(5):
                received = {group.sequence async for group in subscription}
            missing = {number for gap in subscription.dropped for number in range(gap.first, gap.last + 1)}
    assert received == set(written) & set(range(last + 1))
    assert missing == set(range(1, last + 1)) - received
    assert {gap.code for gap in subscription.dropped} == {moqt.StreamCode.NOT_FOUND}


async def test_a_track_that_ends_within_the_range(version):
    """A track that ends before the range does ends iteration."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, 0, 1)
        async with client.subscribe("b", "t", start_group=0, end_group=9, max_age=60) as subscription:
            assert (await subscription.receive()).sequence in {0, 1}
            track.finish()
            with trio.fail_after(5):
                assert len([group.sequence async for group in subscription]) == 1


async def test_a_range_in_the_past(version):
    """A range of which the publisher keeps nothing any more ends at once, without a group."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_groups=2))
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(9))
        async with client.subscribe("b", "t", start_group=2, end_group=4, max_age=60) as subscription:
            with trio.fail_after(5):
                assert [group.sequence async for group in subscription] == []
