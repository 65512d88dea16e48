"""Subscriptions to a range of groups: where they end, and how they go on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

pytestmark = pytest.mark.parametrize(
    "version", ["moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06", "moq-lite-06-wip"]
)


async def write_groups(track: moqt.Track, *sequences: int) -> None:
    """Write groups of one frame each."""
    for sequence in sequences:
        async with track.open_group(sequence) as group:
            await group.send(b"%d" % sequence)


async def test_a_range_ends_iteration_and_not_the_subscription(version):
    """Iteration ends after the last group asked for; an update that moves the end lets it go on, up to the new one."""
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


async def test_an_update_that_ends_the_range_where_it_is(version):
    """A waiting reader ends at once when an update moves the end of the range to the last group that it has."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    received: list[int] = []
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, 0)
        async with client.subscribe("b", "t", start_group=0, max_age=60) as subscription:

            async def read() -> None:
                received.extend([group.sequence async for group in subscription])

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read)
                    await trio.testing.wait_all_tasks_blocked()
                    assert (subscription.statistics().groups_received, subscription.unread_groups) == (1, 0)
                    await subscription.update(end_group=0)
    assert received == [0]


async def test_an_update_that_moves_the_start(version):
    """Groups in front of a start that an update has moved are not waited for."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, 0)
        async with client.subscribe("b", "t", start_group=0, max_age=60) as subscription:
            assert (await subscription.receive()).sequence == 0
            await subscription.update(start_group=3, end_group=4)
            await trio.testing.wait_all_tasks_blocked()
            await write_groups(track, 1, 2, 3, 4)
            with trio.fail_after(5):
                assert sorted([group.sequence async for group in subscription]) == [3, 4]


async def test_gaps_as_long_as_timestamps(version):
    """Numbers may be far apart, as timestamps are: however many groups do not exist, the range ends."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, 10**9, 10**9 + 40_000, 10**9 + 80_000)
        async with client.subscribe("b", "t", start_group=1, end_group=10**9 + 80_000, max_age=60) as subscription:
            with trio.fail_after(5):
                received = sorted([group.sequence async for group in subscription])
    assert received == [10**9, 10**9 + 40_000, 10**9 + 80_000]


async def test_an_end_in_the_past_without_a_start(version):
    """A subscription that starts at the latest group, which is after its end already, ends at once."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(6))
        async with client.subscribe("b", "t", end_group=3, max_age=60) as subscription:
            with trio.fail_after(5):
                received = {group.sequence async for group in subscription}
    assert received == set()


async def test_dropped_ranges_do_not_overlap(version):
    """Each group that does not arrive is reported once, whether the cache or the cursor dropped it."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_groups=3, live_backlog_groups=2))
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(6))
        async with client.subscribe("b", "t", start_group=0, end_group=5, max_age=60) as subscription:
            with trio.fail_after(5):
                received = [group.sequence async for group in subscription]
            missing = [number for gap in subscription.dropped for number in range(gap.first, gap.last + 1)]
    assert sorted(received + missing) == sorted({*received, *missing})
    assert {*received, *missing} >= set(range(min(received), 6))


async def test_moving_the_end_onto_groups_that_are_kept(version):
    """After a range of which nothing was kept, an update that moves its end brings the kept groups after it."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_groups=2))
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(9))
        async with client.subscribe("b", "t", start_group=2, end_group=4, max_age=60) as subscription:
            if version in {"moq-lite-05", "moq-lite-06", "moq-lite-06-wip"}:
                # There no drop can be reported before the first group of a range: the publisher ends the subscription.
                with trio.fail_after(5), pytest.raises(trio.EndOfChannel):
                    await subscription.receive()
                return
            with trio.fail_after(5):
                assert [group.sequence async for group in subscription] == []
                await subscription.update(end_group=8)
                assert sorted([group.sequence async for group in subscription]) == [7, 8]
            missing = [number for gap in subscription.dropped for number in range(gap.first, gap.last + 1)]
    assert sorted(missing) == [2, 3, 4, 5, 6]


async def test_moving_the_end_tells_each_gap_once(version):
    """However often the end of a range moves, a group that never was counts as dropped once."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await write_groups(track, *range(0, 20, 2))
        async with client.subscribe("b", "t", start_group=0, end_group=3, max_age=60) as subscription:
            for last in (3, 9, 5, 9, 17):
                await subscription.update(end_group=last)
                with trio.fail_after(5):
                    async for _ in subscription:
                        pass
            assert subscription.statistics().groups_received == 9
            assert subscription.statistics().groups_dropped == 9
