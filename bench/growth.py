"""What a thing costs while much else is open, beside the same with a tenth of it: `python -m bench.growth NAME`.

Both sides run in this process and speak raw QUIC on loopback, and what is shown is the CPU time of both for one event.
The few and the many are open at the same time and are measured in turn, so that a machine that slows down affects both
alike. It imports public names only.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import attrs
import trio

import moqt_trio as moqt

from .workloads import say

VERSION = "moq-lite-06"
SHARE = 10
ROUNDS = 9
SECONDS_A_ROUND = 0.08
STUCK_WINDOW = 4 * 1024

LIMITS = moqt.Limits(
    max_announcements=4096,
    max_subscriptions=4096,
    max_streams=8192,
    max_open_groups=8192,
    max_unacknowledged_groups=8192,
    live_backlog_groups=8192,
    # Room for many streams on one connection, and for so many requests at once.
    send_buffer=256 * 1024 * 1024,
    request_burst=8192,
)

Event = Callable[[], Awaitable[None]]


async def begin_group(track: moqt.Track, subscription: moqt.Subscription) -> Event:
    """Open a group, and return what sends a frame in it and waits until the subscriber has it."""
    group = track.open_group()
    await group.send(b"")
    reader = await anext(subscription)
    await anext(reader)

    async def send() -> None:
        await group.send(bytes(100))
        await anext(reader)

    return send


class Count:
    """Counts what arrives, for one task that waits for so many."""

    def __init__(self) -> None:
        self.value = 0
        self._wanted = 0
        self._reached = trio.Event()

    def add(self) -> None:
        """Count one more."""
        self.value += 1
        if self.value == self._wanted:
            self._reached.set()

    async def reach(self, value: int) -> None:
        """Wait until so many were counted."""
        if self.value < value:
            self._wanted, self._reached = value, trio.Event()
            await self._reached.wait()


@asynccontextmanager
async def session_with_itself(limits: moqt.Limits) -> AsyncIterator[tuple[moqt.Session, moqt.Session]]:
    """Yield both ends of a session between a server and a client."""
    accepted: list[moqt.Session] = []
    count = Count()

    async def accept(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            accepted.append(session)
            count.add()
            await session.wait_closed()

    async with serving(accept, limits) as connect, connect() as client:
        await count.reach(1)
        yield client, accepted[0]


@asynccontextmanager
async def serving(
    handler: Callable[[moqt.SessionRequest], Awaitable[None]], limits: moqt.Limits
) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[moqt.Session]]]:
    """Run a server; yield what connects a client to it."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=limits))
        url = next(url for url in listener.urls if url.startswith("moqt:"))
        yield partial(moqt.connect, url, versions=[VERSION], fingerprint=listener.fingerprint, limits=limits)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def publications(count: int, streams: int = 10) -> AsyncIterator[Event]:
    """A broadcast comes and goes among others, announced on several streams."""
    changes = Count()

    async def read() -> None:
        async with client.announcements() as announcements:
            async for _ in announcements:
                changes.add()

    async def change() -> None:
        before = changes.value
        async with server.publish("new", moqt.Broadcast()):
            await changes.reach(before + streams)
        await changes.reach(before + 2 * streams)

    async with (
        session_with_itself(LIMITS) as (client, server),
        trio.open_nursery() as nursery,
        AsyncExitStack() as others,
    ):
        for _ in range(streams):
            nursery.start_soon(read)
        for number in range(count):
            await others.enter_async_context(server.publish(f"room/{number}", moqt.Broadcast()))
        await changes.reach(streams * count)
        yield change
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def groups(count: int, tracks: int) -> AsyncIterator[Event]:
    """A frame arrives in one of many groups that are open and read."""
    broadcast = moqt.Broadcast(limits=LIMITS)
    made = [broadcast.track(str(number), max_age=1000) for number in range(tracks)]
    read = Count()

    async def read_group(group: moqt.GroupReader) -> None:
        async for _ in group:
            read.add()

    async def read_track(name: str) -> None:
        async with client.subscribe("b", name, max_age=1000) as subscription:
            async for group in subscription:
                nursery.start_soon(read_group, group)

    async def send() -> None:
        before = read.value
        await opened[-1].send(bytes(100))
        await read.reach(before + 1)

    async with (
        session_with_itself(LIMITS) as (client, server),
        server.publish("b", broadcast),
        trio.open_nursery() as nursery,
    ):
        for track in made:
            nursery.start_soon(read_track, track.name)
            await track.wait_subscribed()
        opened: list[moqt.GroupWriter] = []
        for number in range(count):
            opened.append(made[number % tracks].open_group())
            await opened[-1].send(bytes(100))
            await read.reach(number - 100)
        await read.reach(count)
        yield send
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stuck_streams(count: int) -> AsyncIterator[Event]:
    """A frame arrives beside streams that the subscriber does not read, which have no credit left."""
    limits = attrs.evolve(LIMITS, stream_window=STUCK_WINDOW, connection_window=64 * 1024 * 1024)
    broadcast = moqt.Broadcast(limits=limits)
    unread, live = broadcast.track("unread", max_age=1000), broadcast.track("live")

    async with (
        session_with_itself(limits) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "unread", max_age=1000) as stuck,
        client.subscribe("b", "live") as subscription,
    ):
        await unread.wait_subscribed()
        await live.wait_subscribed()
        held: list[moqt.GroupReader] = []
        for _ in range(count):
            # The readers are kept: a group without one is closed.
            await unread.open_group().send(bytes(2 * STUCK_WINDOW))
            held.append(await anext(stuck))
        yield await begin_group(live, subscription)


@asynccontextmanager
async def sessions(count: int) -> AsyncIterator[Event]:
    """A frame arrives in one of many sessions, of which the others are idle."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")

    async def publish(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with serving(publish, LIMITS) as connect, AsyncExitStack() as idle:
        for _ in range(count - 1):
            await idle.enter_async_context(connect())
        async with connect() as client, client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            yield await begin_group(track, subscription)


SCENARIOS: dict[str, tuple[int, Callable[[int], AbstractAsyncContextManager[Event]]]] = {
    "publications": (1000, publications),
    "open-groups": (3000, lambda count: groups(count, 1)),
    "open-subscriptions": (1000, lambda count: groups(count, count)),
    "stuck-streams": (1000, stuck_streams),
    "idle-sessions": (200, sessions),
}
"""The most that is open, and what opens so many; by the name of the row."""


async def cost(event: Event) -> float:
    """Return the microseconds of CPU time that an event takes."""
    gc.collect()
    began, count = time.process_time(), 0
    while time.process_time() < began + SECONDS_A_ROUND:
        await event()
        count += 1
    return (time.process_time() - began) / count * 1e6


async def compare(name: str) -> None:
    """Measure a scenario and report the cost of an event among few and among many."""
    many, scenario = SCENARIOS[name]
    async with scenario(many // SHARE) as among_few, scenario(many) as among_many:
        costs: list[tuple[float, float]] = [(await cost(among_few), await cost(among_many)) for _ in range(ROUNDS)]
    few, much = zip(*costs, strict=True)
    say(few=min(few), many=min(much))


def main() -> None:
    """Run one scenario."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="What an event costs among many.")
    parser.add_argument("name", choices=SCENARIOS)
    trio.run(compare, parser.parse_args().name)


if __name__ == "__main__":
    main()
