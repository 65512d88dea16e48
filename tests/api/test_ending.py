"""How long the last groups of a track may take, and how many groups may be on their way at once."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import LossyLink, session_pair
from tests.faults.raw_peer import group, raw_peer, settled
from tests.transport.awaiting import accept_bidi

LIMITS = moqt.Limits(late_group_timeout=3)
SUBSCRIBE_OK = bytes.fromhex("00 01 00")
SUBSCRIBE_END = bytes.fromhex("01 01 02")


async def finished_subscription(peer):
    """Accept a subscription of moq-lite-06, announce groups 0 and 1 as the last, and finish its stream."""
    await accept_bidi(peer)  # for the track's properties
    stream = await accept_bidi(peer)
    stream.write(SUBSCRIBE_OK + SUBSCRIBE_END, fin=True)


async def send_group(peer, number):
    stream = await peer.open_uni()
    stream.write(group(0, number, b"x"), fin=True)
    await settled()


async def test_a_group_that_never_comes(autojump_clock):
    """The publisher has finished, and a group is missing: iteration ends `Limits.late_group_timeout` later."""
    async with raw_peer(limits=LIMITS) as (peer, session), session.subscribe("b", "t") as subscription:
        await send_group(peer, 0)
        await finished_subscription(peer)
        await settled()
        began = trio.current_time()
        assert [reader.sequence async for reader in subscription] == [0]
        assert trio.current_time() - began == pytest.approx(LIMITS.late_group_timeout)
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await subscription.receive()
        assert trio.current_time() - began == pytest.approx(LIMITS.late_group_timeout)


async def test_a_reader_that_waits_when_the_publisher_finishes(autojump_clock):
    """The time counts from the publisher's end of the subscription, also for a reader that was waiting then."""
    async with raw_peer(limits=LIMITS) as (peer, session), session.subscribe("b", "t") as subscription:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.EndOfChannel):
                    await subscription.receive()

            nursery.start_soon(read)
            await trio.sleep(100)
            await finished_subscription(peer)
            await settled()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(LIMITS.late_group_timeout)


async def test_a_group_that_comes_late(autojump_clock):
    """A group that is overtaken by the end of its track is delivered; once all are there, no reader waits any more."""
    async with raw_peer(limits=LIMITS) as (peer, session), session.subscribe("b", "t") as subscription:
        await send_group(peer, 1)
        await finished_subscription(peer)
        await settled()
        async with trio.open_nursery() as nursery:
            received: list[int] = []

            async def read() -> None:
                received.extend([reader.sequence async for reader in subscription])
                ended.append(trio.current_time())

            ended: list[float] = []
            nursery.start_soon(read)
            await trio.sleep(LIMITS.late_group_timeout / 2)
            assert received == []
            late = trio.current_time()
            await send_group(peer, 0)
        assert received == [1, 0]
        assert ended == [pytest.approx(late)]


async def test_a_track_that_is_complete(autojump_clock):
    """With every group of the range received, iteration ends at once."""
    async with raw_peer(limits=LIMITS) as (peer, session), session.subscribe("b", "t") as subscription:
        await send_group(peer, 0)
        await send_group(peer, 1)
        await finished_subscription(peer)
        began = trio.current_time()
        assert [reader.sequence async for reader in subscription] == [0, 1]
        assert trio.current_time() == began


async def test_a_session_that_ends_while_stragglers_are_due(autojump_clock):
    """When the session ends after the publisher was done, what arrived is read and the track has ended cleanly."""
    async with raw_peer(limits=LIMITS) as (peer, session), session.subscribe("b", "t") as subscription:
        await send_group(peer, 0)
        await finished_subscription(peer)
        await settled()
        peer.close(0)
        await settled()
        assert [reader.sequence async for reader in subscription] == [0]


async def test_groups_that_are_not_acknowledged(autojump_clock):
    """On a long way at most `Limits.max_unacknowledged_groups` groups of a subscription travel at once; all arrive."""
    limits = moqt.Limits(max_unacknowledged_groups=3)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=1000)
    async with (
        session_pair(limits=limits, link=LossyLink(delay=1)) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        await trio.sleep(10)

        def travelling() -> int:
            return sum(bool(number & 2) for number in server._context.connection.streams)

        before = travelling()
        for _ in range(10):
            await track.write(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert travelling() - before == limits.max_unacknowledged_groups
        track.finish()
        received = []
        most = 0
        began = trio.current_time()
        async for reader in subscription:
            received.append(reader.sequence)
            most = max(most, travelling() - before)
        assert received == list(range(10))
        assert most <= limits.max_unacknowledged_groups
        # Ten groups in threes need four times the way, and then comes the end.
        assert trio.current_time() - began >= 4


@pytest.mark.parametrize("version", ["moq-lite-05", "moq-lite-06"])
@pytest.mark.parametrize("ending", ["finish", "leave"])
async def test_the_end_is_sent_after_the_last_group(version, ending, autojump_clock):
    """SUBSCRIBE_END follows the FIN of the last group: relays end a track there, and cut what is still on its way."""
    limits = moqt.Limits(stream_window=64 * 1024, close_timeout=60)
    async with (
        session_pair(version, limits=limits) as (publisher, subscriber),
        trio.open_nursery() as nursery,
    ):
        broadcast = moqt.Broadcast()
        track = broadcast.track("t", delivery="reliable", max_age=60)
        published = trio.Event()

        async def publish() -> None:
            async with publisher.publish("b", broadcast):
                published.set()
                await track.wait_subscribed()
                await track.write(b"first")
                await track.write(bytes(300_000))
                if ending == "finish":
                    track.finish()
                    await track.wait_unsubscribed()

        nursery.start_soon(publish)
        await published.wait()
        async with subscriber.subscribe("b", "t", max_age=60) as subscription:
            first, last = await subscription.receive(), await subscription.receive()
            assert await first.read_all() == [b"first"]
            await trio.sleep(1)
            # The last group fills its window.
            assert subscription.end_group is None
            assert [len(frame) for frame in await last.read_all()] == [300_000]
            with pytest.raises(trio.EndOfChannel):
                await subscription.receive()
            assert subscription.end_group == 2


BYTES = 1_000_000
"""Ten seconds of a link of 100 kB/s, five times `Limits.close_timeout`."""


async def publish_all(session: moqt.Session, delivery: str) -> None:
    """Publish one track of `BYTES`, and leave the block when the last `send` has returned."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("recording", delivery=delivery, max_age=600)
    async with session.publish("b", broadcast):
        await track.wait_subscribed()
        for _ in range(20):
            async with track.open_group() as group:
                await group.send(bytes(BYTES // 20))


async def wait_published(session: moqt.Session) -> None:
    async with session.announcements() as announcements:
        await announcements.receive()


@pytest.mark.parametrize("way", ["block", "session"])
async def test_what_a_reliable_track_accepted_is_delivered_on_a_slow_link(way, autojump_clock, caplog):
    """Leaving the block, or closing the session, takes as long as the link needs."""
    received = 0
    link = LossyLink(delay=0.03, rate=100_000)
    async with session_pair(link=link) as (publisher, subscriber), trio.open_nursery() as nursery:

        async def publish() -> None:
            if way == "block":
                await publish_all(publisher, "reliable")
                return
            async with trio.open_nursery() as publishing:
                publishing.start_soon(publish_all, publisher, "reliable")
                await trio.sleep(1)
                await publisher.aclose()

        nursery.start_soon(publish)
        await wait_published(subscriber)
        async with subscriber.subscribe("b", "recording", max_age=600) as subscription:
            async for group in subscription:
                async for frame in group:
                    received += len(frame)
    assert received == BYTES
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-06"])
async def test_a_subscriber_that_takes_nothing_ends_the_delivery(version, autojump_clock, caplog):
    """The block ends `Limits.close_timeout` after the last progress, and the log names the track and what was lost."""
    async with session_pair(version) as (publisher, subscriber), trio.open_nursery() as nursery:

        async def publish() -> None:
            broadcast = moqt.Broadcast()
            track = broadcast.track("recording", delivery="reliable", max_age=600)
            async with publisher.publish("b", broadcast):
                await track.wait_subscribed()
                async with track.open_group() as group:
                    # More than a stream's window: the rest waits for credit, which never comes.
                    for _ in range(3):
                        await group.send(bytes(publisher.limits.stream_window // 2))
                left = trio.current_time()
            assert trio.current_time() - left <= 2 * publisher.limits.close_timeout

        nursery.start_soon(publish)
        await wait_published(subscriber)
        async with subscriber.subscribe("b", "recording", max_age=600) as subscription:
            group = await subscription.receive()
            with trio.move_on_after(30):
                await subscriber.wait_closed()
            with pytest.raises(moqt.StreamReset):
                await group.read_all()
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("track recording of b: ")
    assert "Limits.close_timeout" in warning
    lost = int(warning.split()[4])
    assert 0 < lost <= 3 * publisher.limits.stream_window // 2
