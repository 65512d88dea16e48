"""One broadcast on three sessions: a fast subscriber, a slow one and one that never reads, in both deliveries."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.model.track import state_of
from moqt_trio.testing import session_pair

SMALL = moqt.Limits(
    stream_window=16 * 1024,
    connection_window=64 * 1024,
    send_high=16 * 1024,
    live_backlog=128 * 1024,
    live_backlog_groups=16,
    reliable_backlog=64 * 1024,
    reliable_backlog_groups=16,
    cache_bytes=256 * 1024,
)
PAYLOAD = bytes(4096)
GROUPS = 300


@attrs.define
class Reader:
    """What one subscriber got."""

    sequences: list[int] = attrs.field(factory=list)
    received_bytes: int = 0
    broken_groups: int = 0

    async def read(self, subscription: moqt.Subscription, pause: float) -> None:
        async for group in subscription:
            try:
                async for frame in group:
                    self.received_bytes += len(frame)
                    if pause:
                        await trio.sleep(pause)
                self.sequences.append(group.sequence)
            except moqt.StreamReset:
                self.broken_groups += 1


async def test_live_never_waits_and_spares_the_others(autojump_clock):
    """Live: the writer never waits, the fast one gets everything, the others miss old groups, never the newest."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", max_age=60)
    fast, slow = Reader(), Reader()
    async with (
        session_pair(limits=SMALL) as (client1, server1),
        session_pair(limits=SMALL) as (client2, server2),
        session_pair(limits=SMALL) as (client3, server3),
        server1.publish("b", broadcast),
        server2.publish("b", broadcast),
        server3.publish("b", broadcast),
        client1.subscribe("b", "t", max_age=60) as subscription1,
        client2.subscribe("b", "t", max_age=60) as subscription2,
        client3.subscribe("b", "t", max_age=60) as stalled,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(fast.read, subscription1, 0)
        nursery.start_soon(slow.read, subscription2, 0.05)
        await trio.testing.wait_all_tasks_blocked()
        assert track.subscribers == 3
        began = trio.current_time()
        for _ in range(GROUPS):
            async with track.open_group() as group:
                await group.send(PAYLOAD)
            await trio.sleep(0.01)
        took = trio.current_time() - began
        await trio.sleep(30)
        served = [server.statistics().groups_dropped for server in (server1, server2, server3)]
        stalled_bytes = client3.statistics().transport.bytes_received
        reported = [item.statistics().groups_dropped for item in (subscription1, subscription2, stalled)]
        print(
            f"\nlive: writer took {took:.2f} s; fast {fast.received_bytes} B, slow {slow.received_bytes} B, "
            f"stalled {stalled_bytes} B on the wire; dropped {served}, reported to the subscribers {reported}"
        )
        nursery.cancel_scope.cancel()
    assert took == pytest.approx(GROUPS * 0.01)
    assert fast.sequences == list(range(GROUPS))
    assert served[0] == reported[0] == 0
    assert GROUPS - 1 in slow.sequences
    assert served[1] > 0
    assert len(slow.sequences) + served[1] == GROUPS
    assert reported[1] == served[1]
    # The peer of a reader that never reads sends no more than the window, and the dropped groups are counted.
    assert stalled_bytes <= SMALL.connection_window + 4096
    # Kept for it: what the peer's window took, as much again in the send buffers, and the bound in groups.
    kept = 2 * SMALL.connection_window // len(PAYLOAD) + SMALL.live_backlog_groups
    assert served[2] >= GROUPS - kept - 2


async def test_reliable_waits_for_the_slowest_and_loses_nothing(autojump_clock):
    """Reliable: the writer waits within its bound for the slowest; everyone gets everything once the slowest reads."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", delivery="reliable", max_age=60)
    readers = [Reader(), Reader(), Reader()]
    written = 0
    async with (
        session_pair(limits=SMALL) as (client1, server1),
        session_pair(limits=SMALL) as (client2, server2),
        session_pair(limits=SMALL) as (client3, server3),
        server1.publish("b", broadcast),
        server2.publish("b", broadcast),
        server3.publish("b", broadcast),
        client1.subscribe("b", "t", max_age=60) as subscription1,
        client2.subscribe("b", "t", max_age=60) as subscription2,
        client3.subscribe("b", "t", max_age=60) as stalled,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(readers[0].read, subscription1, 0)
        nursery.start_soon(readers[1].read, subscription2, 0.001)
        await trio.testing.wait_all_tasks_blocked()

        async def write() -> None:
            nonlocal written
            for _ in range(GROUPS):
                async with track.open_group() as group:
                    await group.send(PAYLOAD)
                written += 1
            track.finish()

        nursery.start_soon(write)
        await trio.sleep(10)
        waiting_at = written
        print(
            f"\nreliable: with one subscriber stalled the writer stopped at {waiting_at} groups "
            f"({waiting_at * len(PAYLOAD)} B); the fast one had {readers[0].received_bytes} B"
        )
        bound = SMALL.reliable_backlog + 2 * SMALL.connection_window
        assert 0 < waiting_at * len(PAYLOAD) <= bound + 2 * len(PAYLOAD)
        nursery.start_soon(readers[2].read, stalled, 0.002)
    print(f"reliable: then all got {[reader.received_bytes for reader in readers]} B")
    assert [sorted(reader.sequences) for reader in readers] == [list(range(GROUPS))] * 3
    assert [reader.broken_groups for reader in readers] == [0, 0, 0]


async def test_a_stalled_reliable_subscriber_that_leaves_frees_the_writer(autojump_clock):
    """A writer that waits for a subscriber goes on when that subscriber unsubscribes."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", delivery="reliable")
    async with session_pair(limits=SMALL) as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "t"):
            await track.wait_subscribed()
            with trio.move_on_after(5) as waiting:
                while True:
                    await track.write(PAYLOAD)
            assert waiting.cancelled_caught
        with trio.fail_after(5):
            await track.wait_unsubscribed()
            await track.write(PAYLOAD)


async def test_an_endless_group_stays_bounded_in_memory(autojump_clock):
    """A live group that grows forever costs no more than the cache, and a reader that keeps up gets all of it."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t")
    total = 0
    async with (
        session_pair(limits=SMALL) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        async with track.open_group() as writer:
            await writer.send(PAYLOAD)
            reader = await subscription.receive()
            await reader.receive()
            for _ in range(500):
                await writer.send(PAYLOAD)
                total += len(await reader.receive())
            kept = state_of(track).group(0)
            assert kept is not None
            assert kept.size <= SMALL.cache_bytes
    assert total == 500 * len(PAYLOAD)
