"""What something costs does not depend on how much else is open: tenfold as much costs at most half as much again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.instructions import instructions

MANY = 300
LIMITS = moqt.Limits(max_subscriptions=4 * MANY, max_streams=4 * MANY, max_announcements=4 * MANY)
settled = trio.testing.wait_all_tasks_blocked

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
