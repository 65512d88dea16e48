"""The processes of the relay's rows: `python -m bench.relay_sides relay | publish | view | stall | announce | watch`.

The relay is the ten lines of `docs/howto/relay.md`. The publisher connects to it, or serves the viewers itself where
there is no relay. How far each viewer is stands in a file that all processes map into memory: by it the publisher stays
a few groups ahead of the slowest viewer, so that the relay is busy all the time and nothing is dropped.

Each process takes orders, one a line of standard input, and answers each with a report. It imports public names only.
"""

from __future__ import annotations

import argparse
import mmap
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

import moqt_trio as moqt

from .library import PATH, connected
from .workloads import add_child_options, run_child, say

AHEAD = 32
"""Groups that the publisher is ahead of the slowest viewer: half of what may wait for the viewer of a live track."""
CACHE_BYTES = 2 * 1024 * 1024
"""What the relay's cache takes: it is full within the first second of 16 KiB groups."""
POLL_SECONDS = 0.001

_STAMP = struct.Struct("!Q")

Orders = Callable[[str], dict[str, object]]


class Progress:
    """How far each viewer is, in a file that processes share.

    Args:
        path: The file.
        viewers: How many there are.
    """

    def __init__(self, path: Path, viewers: int) -> None:
        size = 16 * viewers
        if path.stat().st_size < size:
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        numbers = memoryview(self._map).cast("Q")
        self.reached = numbers[:viewers]
        """The number of the next group of each viewer, or of its broadcasts."""
        self.received = numbers[viewers:]
        """The groups that each viewer has received whole."""


async def take_orders(answer: Orders) -> None:
    """Answer each line of standard input with a report, until it ends."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        order = line.strip()
        say(**({"cpu": time.process_time()} if order == "cpu" else answer(order)))


def no_orders(order: str) -> dict[str, object]:
    """Report nothing: the order asks only whether the process is there."""
    return {}


@asynccontextmanager
async def serving(
    handler: Callable[[moqt.SessionRequest], Awaitable[None]], hop_id: int | None = None
) -> AsyncIterator[None]:
    """Serve at any path, and report the address."""
    async with trio.open_nursery() as nursery:
        router = moqt.Router(fallback=handler, default="/")
        listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", 0, hop_id=hop_id))
        say(port=listener.port, fingerprint=listener.fingerprint)
        yield
        nursery.cancel_scope.cancel()


async def relay(arguments: argparse.Namespace) -> None:
    """Run a relay; the order `peak` reports the most bytes that were cached since the order `watch`."""
    origin = moqt.Origin(cache_bytes=CACHE_BYTES)
    peak = 0

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view()) as session:
            await session.wait_closed()

    async def watch_cache() -> None:
        nonlocal peak
        while True:
            peak = max(peak, origin.statistics().cached_bytes)
            await trio.sleep(POLL_SECONDS)

    def answer(order: str) -> dict[str, object]:
        if order == "watch":
            nursery.start_soon(watch_cache)
        return {"peak": peak}

    async with serving(handle, origin.hop_id), trio.open_nursery() as nursery:
        await take_orders(answer)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def in_sessions(
    arguments: argparse.Namespace, publish: Callable[[moqt.Session], Awaitable[None]]
) -> AsyncIterator[None]:
    """Run a publisher in a session with the relay, or in the session of each viewer where there is no relay."""

    async def serve_session(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            await publish(session)

    if not arguments.port:
        async with serving(serve_session):
            yield
        return
    async with connected("moqt", arguments.port, arguments.fingerprint) as session, trio.open_nursery() as nursery:
        nursery.start_soon(publish, session)
        say(connected=True)
        yield
        nursery.cancel_scope.cancel()


class Writer:
    """Writes the groups of one track, as it is ordered.

    Args:
        track: The track.
        size: Bytes of a group, which has one frame.
        progress: The viewers'.
    """

    def __init__(self, track: moqt.Track, size: int, progress: Progress) -> None:
        self._track = track
        self._rest = bytes(size - _STAMP.size)
        self._progress = progress
        self._written = 0
        self._pace: float | None = 0.0
        self._changed = trio.Event()

    def order(self, order: str) -> dict[str, object]:
        """Take `full`, for as many groups as the viewers take, or the number of groups to write in a second."""
        self._pace = None if order == "full" else float(order)
        self._changed.set()
        return {"written": self._written}

    async def run(self) -> None:
        """Write a first group, by which the viewers know that they are there, and then what is ordered."""
        await self._write(0)
        while True:
            self._changed = trio.Event()
            if self._pace is None:
                await self._write_full()
            elif self._pace:
                await self._write_paced(self._pace)
            else:
                await self._changed.wait()

    async def _write(self, stamp: int) -> None:
        await self._track.write(_STAMP.pack(stamp) + self._rest)
        self._written += 1

    async def _write_full(self) -> None:
        while not self._changed.is_set():
            if self._written - min(self._progress.reached) < AHEAD:
                await self._write(0)
            else:
                await trio.sleep(POLL_SECONDS / 2)

    async def _write_paced(self, pace: float) -> None:
        due = trio.current_time()
        while not self._changed.is_set():
            await self._write(time.monotonic_ns())
            due += 1 / pace
            with trio.move_on_at(due):
                await self._changed.wait()


async def publish(arguments: argparse.Namespace) -> None:
    """Publish one live track."""
    broadcast = moqt.Broadcast()
    writer = Writer(broadcast.track("data"), arguments.size, Progress(arguments.progress, arguments.viewers))

    async def publish_in(session: moqt.Session) -> None:
        async with session.publish(PATH, broadcast):
            await session.wait_closed()

    async with in_sessions(arguments, publish_in), trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await take_orders(writer.order)
        nursery.cancel_scope.cancel()


async def view(arguments: argparse.Namespace) -> None:
    """View the track in some sessions; the order `latencies` reports those since the last such order, in µs."""
    progress = Progress(arguments.progress, arguments.viewers)
    latencies: list[int] = []
    lost = 0

    async def view_one(number: int) -> None:
        nonlocal lost
        async with connected("moqt", arguments.port, arguments.fingerprint) as session:
            await session.wait_announced(PATH)
            async with session.subscribe(PATH, "data", max_age=60) as subscription:
                async for group in subscription:
                    try:
                        frame = await group.receive()
                        (stamp,) = _STAMP.unpack_from(frame.payload)
                        if stamp:
                            latencies.append((time.monotonic_ns() - stamp) // 1000)
                        await group.read_all()
                    except moqt.StreamReset:
                        lost += 1
                        continue
                    progress.received[number] += 1
                    progress.reached[number] = max(progress.reached[number], group.sequence + 1)

    def answer(order: str) -> dict[str, object]:
        taken = latencies.copy()
        latencies.clear()
        return {"latencies": taken, "lost": lost}

    async with trio.open_nursery() as nursery:
        for number in range(arguments.first, arguments.first + arguments.sessions):
            nursery.start_soon(view_one, number)
        await take_orders(answer)
        nursery.cancel_scope.cancel()


async def stall(arguments: argparse.Namespace) -> None:
    """Subscribe, and read nothing; report when subscribed."""
    async with connected("moqt", arguments.port, arguments.fingerprint) as session:
        await session.wait_announced(PATH)
        async with session.subscribe(PATH, "data", max_age=60) as subscription:
            # The reader is kept: a group without one is closed.
            group = await subscription.receive()
            say(stalled=group.sequence)
            await take_orders(no_orders)


async def announce(arguments: argparse.Namespace) -> None:
    """Announce many broadcasts at the order `begin`, and end them at the order `end`."""
    begun, ended = trio.Event(), trio.Event()
    broadcasts = [moqt.Broadcast() for _ in range(arguments.broadcasts)]

    async def publish_in(session: moqt.Session) -> None:
        await begun.wait()
        with suppress(moqt.SessionClosed):
            async with AsyncExitStack() as stack:
                for number, broadcast in enumerate(broadcasts):
                    await stack.enter_async_context(session.publish(f"room/{number}", broadcast))
                await ended.wait()
            await session.wait_closed()

    def answer(order: str) -> dict[str, object]:
        {"begin": begun, "end": ended}[order].set()
        return {}

    async with in_sessions(arguments, publish_in):
        await take_orders(answer)


async def watch(arguments: argparse.Namespace) -> None:
    """Follow the announcements in some sessions; report when all of them are open."""
    progress = Progress(arguments.progress, arguments.viewers)

    async def watch_one(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with (
            connected("moqt", arguments.port, arguments.fingerprint) as session,
            session.announcements() as announcements,
        ):
            task_status.started()
            async for change in announcements:
                progress.reached[number] += 1 if change.active else -1

    async with trio.open_nursery() as nursery:
        for number in range(arguments.first, arguments.first + arguments.sessions):
            await nursery.start(watch_one, number)
        say(watching=arguments.sessions)
        await take_orders(no_orders)
        nursery.cancel_scope.cancel()


ROLES: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "relay": relay,
    "publish": publish,
    "view": view,
    "stall": stall,
    "announce": announce,
    "watch": watch,
}


def main() -> None:
    """Run one process."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_sides", description="One process of the relay's rows.")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--progress", type=Path, help="the file of the viewers' progress")
    parser.add_argument("--viewers", type=int, default=1, help="of all processes")
    parser.add_argument("--first", type=int, default=0, help="the number of this process's first viewer")
    parser.add_argument("--sessions", type=int, default=1, help="viewers in this process")
    parser.add_argument("--size", type=int, default=100, help="bytes of a group")
    parser.add_argument("--broadcasts", type=int, default=1000)
    add_child_options(parser)
    arguments = parser.parse_args()
    run_child(arguments.profile, ROLES[arguments.role], arguments)


if __name__ == "__main__":
    main()
