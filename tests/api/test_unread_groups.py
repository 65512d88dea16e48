"""Groups that an application does not read, or not to their end, and the rest of its session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

LIMITS = moqt.Limits(connection_window=256 * 1024, stream_window=64 * 1024, cache_bytes=64 * 1024 * 1024)
GROUPS = 60
FRAMES = 3
FRAME = bytes(10_000)
"""A group has 30,000 bytes: nine of them fill the window, and all of them would fill it seven times."""

EACH_VERSION = pytest.mark.parametrize("version", ["moq-lite-03", "moq-lite-05", "moq-lite-06"])
EACH_DELIVERY = pytest.mark.parametrize("delivery", ["live", "reliable"])


@asynccontextmanager
async def publishing(version: str, delivery: str) -> AsyncIterator[moqt.Session]:
    """Yield a session whose peer publishes `GROUPS` groups on "video", and one on "audio" each 100 ms."""
    async with session_pair(version, limits=LIMITS) as (publisher, subscriber), trio.open_nursery() as nursery:
        broadcast = moqt.Broadcast(limits=LIMITS)
        video = broadcast.track("video", delivery=delivery, max_age=600)
        audio = broadcast.track("audio", max_age=600)

        async def publish_video() -> None:
            await video.wait_subscribed()
            for _ in range(GROUPS):
                async with video.open_group() as group:
                    for _ in range(FRAMES):
                        await group.send(FRAME)
                await trio.sleep(0.02)
            video.finish()

        async def publish_audio() -> None:
            while True:
                await audio.write(b"sound")
                await trio.sleep(0.1)

        async with publisher.publish("cam", broadcast):
            nursery.start_soon(publish_video)
            nursery.start_soon(publish_audio)
            await trio.sleep(0.1)
            yield subscriber
            nursery.cancel_scope.cancel()


async def read_one_frame(group: moqt.GroupReader) -> None:
    await group.receive()


async def leave_early(group: moqt.GroupReader) -> None:
    async for _ in group:
        break


async def read_until_a_deadline(group: moqt.GroupReader) -> None:
    with trio.move_on_after(0.001):
        async for _ in group:
            await trio.sleep(0.01)


async def read_nothing(group: moqt.GroupReader) -> None:
    await trio.lowlevel.checkpoint()


async def close_it(group: moqt.GroupReader) -> None:
    await group.receive()
    group.close()


@EACH_VERSION
@EACH_DELIVERY
@pytest.mark.parametrize("read", [read_one_frame, leave_early, read_until_a_deadline, read_nothing, close_it])
async def test_groups_that_are_left_half_read(
    version: str, delivery: str, read: Callable[[moqt.GroupReader], Awaitable[None]], autojump_clock
):
    """A program that goes on to the next group, and keeps no reader, gets every group to the last one."""
    seen = []
    async with publishing(version, delivery) as session:
        with trio.fail_after(30):
            async with session.subscribe("cam", "video", max_age=600) as subscription:
                async for group in subscription:
                    await read(group)
                    seen.append(group.sequence)
                    del group
    assert sorted(seen) == list(range(GROUPS))


@EACH_VERSION
@EACH_DELIVERY
async def test_groups_that_are_held_and_not_read(version: str, delivery: str, autojump_clock):
    """Held groups that were overtaken are dropped, reported, and raise; every group still arrives."""
    held: list[moqt.GroupReader] = []
    async with publishing(version, delivery) as session:
        with trio.fail_after(30):
            async with session.subscribe("cam", "video", max_age=600) as subscription:
                async for group in subscription:
                    await group.receive()
                    held.append(group)
                assert sorted(group.sequence for group in held) == list(range(GROUPS))
                # Until they are read, more of them may be dropped.
                failed = {}
                for group in held:
                    try:
                        assert len(await group.read_all()) == FRAMES - 1
                    except moqt.StreamReset as error:
                        failed[group.sequence] = (error.code, error.by_peer)
                dropped = {number for item in subscription.dropped for number in range(item.first, item.last + 1)}
                assert dropped == set(failed)
                assert set(failed.values()) == {(moqt.StreamCode.TOO_FAR_BEHIND, False)}
                assert {item.code for item in subscription.dropped} == {moqt.StreamCode.TOO_FAR_BEHIND}
                assert len(dropped) == subscription.statistics().groups_dropped >= GROUPS // 2


@EACH_VERSION
async def test_groups_that_are_held_beyond_max_age(version: str, autojump_clock):
    """A subscription in order keeps what it holds for `max_age`; then its overtaken groups are dropped as OLD."""
    held: list[moqt.GroupReader] = []
    async with publishing(version, "reliable") as session:
        with trio.fail_after(100):
            async with session.subscribe("cam", "video", max_age=3, ordered=True) as subscription:
                began = trio.current_time()
                async for group in subscription:
                    held.append(group)
                assert trio.current_time() - began > 3
                assert len(held) == GROUPS
                assert {item.code for item in subscription.dropped} == {moqt.StreamCode.OLD}


@EACH_VERSION
async def test_other_tracks_go_on(version: str, autojump_clock):
    """While the groups of one track are taken and not read, the frames of another arrive within seconds."""
    kept: list[moqt.GroupReader] = []

    async def take(subscription: moqt.Subscription) -> None:
        async for group in subscription:
            kept.append(group)

    async with (
        publishing(version, "live") as session,
        session.subscribe("cam", "video", max_age=600) as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(take, subscription)
        await trio.sleep(0.5)
        async with session.subscribe("cam", "audio", max_age=600) as audio:
            for _ in range(20):
                with trio.fail_after(5):
                    assert [bytes(frame) for frame in await (await audio.receive()).read_all()] == [b"sound"]
        with trio.fail_after(5):
            async with session.announcements() as announcements:
                assert (await announcements.receive()).path == moqt.BroadcastPath.parse("cam")
        nursery.cancel_scope.cancel()


@EACH_VERSION
@EACH_DELIVERY
async def test_a_slow_reader_loses_nothing(version: str, delivery: str, autojump_clock):
    """One that goes on reading, slower than the groups come, slows the publisher down and gets all of them."""
    async with (
        publishing(version, delivery) as session,
        session.subscribe("cam", "video", max_age=600) as subscription,
    ):
        received = []
        async for group in subscription:
            received.append(len(await group.read_all()))
            await trio.sleep(0.4)
        assert received == [FRAMES] * GROUPS
        assert subscription.dropped == ()


@EACH_VERSION
@EACH_DELIVERY
async def test_a_subscription_that_pauses_holds_up_no_other(version: str, delivery: str, autojump_clock):
    """Its oldest groups are dropped and reported; the newest of them can be taken, and another track misses nothing."""
    async with (
        publishing(version, delivery) as session,
        session.subscribe("cam", "video", max_age=600) as video,
        session.subscribe("cam", "audio", max_age=600) as audio,
    ):
        for _ in range(100):
            # The first second shows the pause; beyond it nothing waits.
            with trio.fail_after(2):
                assert [bytes(frame) for frame in await (await audio.receive()).read_all()] == [b"sound"]
        assert audio.dropped == ()
        kept = [group async for group in video]
        held = [len(await group.read_all()) for group in kept]
        dropped = {number for item in video.dropped for number in range(item.first, item.last + 1)}
        assert {item.code for item in video.dropped} == {moqt.StreamCode.TOO_FAR_BEHIND}
        assert sorted(dropped | {group.sequence for group in kept}) == list(range(GROUPS))
        assert dropped.isdisjoint(group.sequence for group in kept)
        assert max(dropped) < min(group.sequence for group in kept)
        assert set(held) == {FRAMES}


@EACH_VERSION
@EACH_DELIVERY
async def test_a_loop_that_stands_still(version: str, delivery: str, autojump_clock):
    """That counts for no pause of a reader: a subscription that is read soon before and after loses nothing."""
    async with (
        publishing(version, delivery) as session,
        session.subscribe("cam", "video", max_age=600) as video,
        session.subscribe("cam", "audio", max_age=600),
    ):
        await trio.sleep(0.5)
        autojump_clock.jump(10)
        await trio.sleep(0.1)
        received = [len(await group.read_all()) async for group in video]
        assert video.dropped == ()
        assert received == [FRAMES] * GROUPS


@EACH_VERSION
async def test_a_subscription_in_order_that_pauses_is_dropped_beyond_max_age(version: str, autojump_clock):
    """Beside others it holds the session for `max_age` and no longer."""
    async with (
        publishing(version, "reliable") as session,
        session.subscribe("cam", "video", max_age=3, ordered=True) as video,
        session.subscribe("cam", "audio", max_age=600) as audio,
    ):
        with trio.fail_after(15):
            for _ in range(100):
                await (await audio.receive()).read_all()
        assert {item.code for item in video.dropped} == {moqt.StreamCode.OLD}


@EACH_VERSION
@EACH_DELIVERY
@pytest.mark.parametrize("ordered", [False, True])
async def test_a_subscription_alone_that_pauses_loses_nothing(
    version: str, delivery: str, ordered: bool, autojump_clock
):
    """It holds the window meanwhile: its publisher waits, and every group arrives in the end."""
    async with (
        publishing(version, delivery) as session,
        session.subscribe("cam", "video", max_age=600, ordered=ordered) as subscription,
    ):
        await trio.sleep(60)
        received = [len(await group.read_all()) async for group in subscription]
        assert received == [FRAMES] * GROUPS
        assert subscription.dropped == ()


@EACH_VERSION
async def test_a_fetch_beside_a_subscription_that_pauses(version: str, autojump_clock):
    async with (
        publishing(version, "live") as session,
        session.subscribe("cam", "video", max_age=600) as video,
    ):
        await trio.sleep(3)
        with trio.fail_after(5):
            async with session.fetch("cam", "audio", 0) as fetch:
                assert [bytes(frame) async for frame in fetch] == [b"sound"]
        assert video.dropped


@EACH_VERSION
async def test_a_reader_that_keeps_up_is_not_looked_at(version, autojump_clock):
    """Groups that are read as they come never start the task that looks for unread ones."""
    async with session_pair(version, limits=LIMITS) as (publisher, subscriber):
        broadcast = moqt.Broadcast(limits=LIMITS)
        track = broadcast.track("t")
        async with publisher.publish("cam", broadcast), subscriber.subscribe("cam", "t") as subscription:
            await track.wait_subscribed()
            for number in range(100):
                await track.write(b"%d" % number)
                group = await anext(subscription)
                assert await group.read_all() == [b"%d" % number]
                assert not subscriber._subscriber._unread._running
