"""What something costs does not depend on how much else is open: tenfold as much costs at most half as much again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.instructions import instructions

MANY = 300
LIMITS = moqt.Limits(
    max_subscriptions=4 * MANY,
    max_streams=4 * MANY,
    max_announcements=4 * MANY,
    max_open_groups=4 * MANY,
    live_backlog_groups=4 * MANY,
    reliable_backlog_groups=4 * MANY,
)
settled = trio.testing.wait_all_tasks_blocked

Delivery = Literal["live", "reliable"]
Event = Callable[[], Awaitable[object]]


async def check_flat(scenario, *arguments: object) -> None:
    """Check that the event of a scenario costs as much with many as with a tenth of them."""
    costs = []
    for count in (MANY // 10, MANY):
        async with scenario(count, *arguments) as event:
            costs.append(await instructions(event))
    assert costs[1] <= 1.5 * costs[0], costs


@asynccontextmanager
async def publishing(count: int, version: str, prefixes: list[str]) -> AsyncIterator[Event]:
    """A broadcast comes and goes among others."""

    async def read(prefix: str) -> None:
        async with client.announcements(prefix) as announcements:
            async for _ in announcements:
                pass

    async with (
        session_pair(version, limits=LIMITS) as (client, server),
        trio.open_nursery() as nursery,
        AsyncExitStack() as published,
    ):
        for prefix in prefixes:
            nursery.start_soon(read, prefix)
        others = moqt.Broadcast()
        others.track("t")
        for number in range(count):
            await published.enter_async_context(server.publish(f"room/{number}", others))
        await settled()

        async def publish() -> None:
            broadcast = moqt.Broadcast()
            broadcast.track("t")
            async with server.publish("room/new", broadcast):
                await settled()
                broadcast.track("u")
                await settled()
            await settled()

        yield publish
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moq-lite-01", "moq-transfork-03"])
async def test_a_publication_among_many(version):
    """A broadcast that comes and goes is announced at the same cost however many others there are."""
    await check_flat(publishing, version, ["", "room"])


async def test_a_publication_among_many_announce_streams():
    """It costs no more with many announce streams that have other prefixes."""

    @asynccontextmanager
    async def streams(count: int) -> AsyncIterator[Event]:
        prefixes = ["room", *(f"elsewhere/{number}" for number in range(min(count, 200)))]
        async with publishing(1, "moq-lite-06", prefixes) as event:
            yield event

    await check_flat(streams)


async def test_asking_for_few_announcements_among_many():
    """A request for what is below a prefix costs what there is, and not what is published elsewhere."""

    @asynccontextmanager
    async def asking(count: int) -> AsyncIterator[Event]:
        async with session_pair(limits=LIMITS) as (client, server), AsyncExitStack() as published:
            for number in range(count):
                await published.enter_async_context(server.publish(f"room/{number}", moqt.Broadcast()))

            async def ask() -> None:
                async with client.announcements("room/7") as announcements:
                    await anext(announcements)

            yield ask

    await check_flat(asking)


async def test_the_end_of_a_publication_among_many_subscriptions():
    """A broadcast that ends looks for its own subscriptions only."""

    @asynccontextmanager
    async def subscribed(count: int) -> AsyncIterator[Event]:
        broadcast = moqt.Broadcast()
        for number in range(count):
            broadcast.track(str(number))
        async with (
            session_pair(limits=LIMITS) as (client, server),
            server.publish("b", broadcast),
            AsyncExitStack() as subscriptions,
        ):
            for name in broadcast.tracks:
                await subscriptions.enter_async_context(client.subscribe("b", name))
            await settled()

            async def publish() -> None:
                async with server.publish("other", moqt.Broadcast()):
                    await settled()

            yield publish

    await check_flat(subscribed)


@asynccontextmanager
async def open_groups(count: int, tracks: int, delivery: Delivery) -> AsyncIterator[tuple[Event, Event]]:
    """Groups are open, each with a frame that was read. Yields two events: a frame of the last one, and a new group."""
    broadcast = moqt.Broadcast(limits=LIMITS)
    made = [broadcast.track(str(number), delivery=delivery, max_age=60) for number in range(tracks)]
    arrived = trio.Event()

    async def read_group(group: moqt.GroupReader) -> None:
        async for _ in group:
            arrived.set()

    async def read(name: str) -> None:
        async with client.subscribe("b", name, max_age=1000) as subscription:
            async for group in subscription:
                nursery.start_soon(read_group, group)

    async with (
        session_pair(limits=LIMITS) as (client, server),
        server.publish("b", broadcast),
        trio.open_nursery() as nursery,
    ):
        for track in made:
            nursery.start_soon(read, track.name)
        await settled()
        groups = [made[number % tracks].open_group() for number in range(count)]
        for group in groups:
            await group.send(b"x")
        await settled()

        async def send() -> None:
            await groups[-1].send(b"x")
            await settled()

        async def open_another() -> None:
            async with made[0].open_group() as group:
                await group.send(b"x")
                await settled()
            await settled()

        yield send, open_another
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("delivery", ["live", "reliable"])
@pytest.mark.parametrize("event", [0, 1], ids=["frame", "group"])
async def test_one_among_many_open_groups(delivery, event, autojump_clock):
    """A frame, and a new group, cost the same however many groups of the track are open."""

    @asynccontextmanager
    async def scenario(count: int) -> AsyncIterator[Event]:
        async with open_groups(count, 1, delivery) as events:
            # From now on the open groups are older than the cache would keep them, were they complete.
            await trio.sleep(100)
            yield events[event]

    await check_flat(scenario)


@pytest.mark.parametrize("event", [0, 1], ids=["frame", "group"])
async def test_one_among_many_tracks(event):
    """A frame, and a new group, cost the same however many tracks are subscribed to and have open groups."""

    @asynccontextmanager
    async def scenario(count: int) -> AsyncIterator[Event]:
        async with open_groups(count, count, "live") as events:
            yield events[event]

    await check_flat(scenario)


async def test_a_group_at_the_cache_bound_among_many_open_groups():
    """A group that pushes another out of a full cache costs the same however many older groups are open."""

    @asynccontextmanager
    async def scenario(count: int) -> AsyncIterator[Event]:
        track = moqt.Broadcast(limits=moqt.Limits(cache_bytes=50_000)).track("t")
        for _ in range(count):
            track.open_group()
        for _ in range(60):
            await track.write(bytes(1000))

        async def write() -> None:
            await track.write(bytes(1000))

        yield write

    await check_flat(scenario)


async def test_another_stream_among_many_subscriptions_that_wait_for_one():
    """When the peer allows another stream, one subscription gets it, and the others that wait cost nothing."""

    @asynccontextmanager
    async def scenario(count: int) -> AsyncIterator[Event]:
        broadcast = moqt.Broadcast()
        tracks = [broadcast.track(str(number)) for number in range(count)]
        arrived: list[str] = []

        async def read(name: str) -> None:
            async with client.subscribe("b", name) as subscription:
                async for group in subscription:
                    arrived.append(name)
                    await group.read_all()

        async with (
            session_pair(limits=LIMITS, client_limits=attrs.evolve(LIMITS, max_streams=4)) as (client, server),
            server.publish("b", broadcast),
            trio.open_nursery() as nursery,
        ):
            for track in tracks:
                nursery.start_soon(read, track.name)
            await settled()
            groups = [track.open_group() for track in tracks]
            for group in groups:
                await group.send(b"x")
            await settled()

            async def end_one() -> None:
                before = len(arrived)
                groups[int(arrived[before - 4])].finish()
                await settled()
                assert len(arrived) == before + 1

            yield end_one
            nursery.cancel_scope.cancel()

    await check_flat(scenario)
