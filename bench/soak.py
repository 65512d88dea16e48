"""Long runs, printed as a table: does a server give back what many sessions and groups took: `python -m bench.soak`.

The server is a process of its own, and the client is this one. The server's memory is read after a fifth of each run
and at its end: what was made once is there by then, and what is kept of each session or group has grown by four fifths.
At the end its tasks and its open files have to be as many as at the beginning. It imports public names only.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import attrs
import trio

import moqt_trio as moqt

from .children import Child, child
from .library import PATH, connected, publish_single_frames, wait_announced
from .workloads import SMALL_FRAME_BYTES, say

SCHEMES = {"moqt": "raw QUIC", "https": "WebTransport"}
EARLY = 0.2
"""The share of a run after which what is made once was made."""
MIB = 1024 * 1024
MAX_GROWTH = 0.05
MAX_GROWTH_BYTES = 8 * MIB
MAX_IDLE_KIB = 250
MAX_P99_SECONDS = 0.1
CLIENTS = 8
LIVE_INTERVAL = 0.2
LIVE_SECONDS = 30
REST_SECONDS = 60
"""How long a server may take to end what its clients have left: more than QUIC's closing and draining periods."""


# -- the server --------------------------------------------------------------------------------------------


async def publish_live(track: moqt.Track) -> None:
    """Write the time five times a second."""
    while True:
        await track.write(str(time.perf_counter_ns()).encode())
        await trio.sleep(LIVE_INTERVAL)


async def serve() -> None:
    """Serve, and report what is held for each line of standard input, until that ends."""
    live = moqt.Broadcast()
    clock = live.track("data")

    async def idle(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            await session.wait_closed()

    async def groups(request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        track = broadcast.track("data", delivery="reliable")
        async with request.accept() as session, session.publish(PATH, broadcast):
            await track.wait_subscribed()
            await publish_single_frames(track, os.urandom(SMALL_FRAME_BYTES))
            await session.wait_closed()

    async def active(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish(PATH, live):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/idle": idle, "/groups": groups, "/active": active})
        listener = await nursery.start(moqt.serve, router, "127.0.0.1", 0)
        nursery.start_soon(publish_live, clock)
        say(port=listener.port, fingerprint=listener.fingerprint)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line == "freeze\n":
                gc.collect()
                gc.freeze()
            gc.collect()
            tasks = trio.lowlevel.current_statistics().tasks_living
            say(sessions=len(listener.sessions), tasks=tasks, files=len(os.listdir("/proc/self/fd")))
        nursery.cancel_scope.cancel()


# -- the client --------------------------------------------------------------------------------------------


@attrs.frozen
class Held:
    """What a server holds.

    Attributes:
        memory: Bytes that are resident.
        sessions: Sessions that are open.
        tasks: Tasks that are alive.
        files: Files and sockets that are open.
    """

    memory: int
    sessions: int
    tasks: int
    files: int


@attrs.frozen
class Line:
    """One line of the table.

    Attributes:
        name: What was run.
        figure: What was measured.
        bound: What it should be.
        held: True when it was.
    """

    name: str
    figure: str
    bound: str
    held: bool


class Server:
    """The server's process."""

    def __init__(self, process: Child) -> None:
        self._process = process
        hello = process.read_report()
        self._address = int(hello["port"]), str(hello["fingerprint"])

    def look(self, order: str = "look") -> Held:
        """Return what the server holds."""
        self._process.write(order)
        report = self._process.read_report()
        return Held(self._process.resident_bytes(), int(report["sessions"]), int(report["tasks"]), int(report["files"]))

    async def rest(self, tasks: int) -> Held:
        """Wait until the server has ended what its clients left, and return what it holds."""
        until = time.monotonic() + REST_SECONDS
        while (held := self.look()).tasks > tasks and time.monotonic() < until:  # noqa: ASYNC110 - in another process
            await trio.sleep(0.5)
        return held

    def connect(self, scheme: str, path: str) -> AbstractAsyncContextManager[moqt.Session]:
        """Open a session on a path."""
        return connected(scheme, *self._address, path)


def growth(name: str, early: Held, late: Held, first: Held, last: Held, seconds: float, count: int) -> Line:
    """Return the line of a run that should leave nothing."""
    grown = late.memory - early.memory
    bound = min(MAX_GROWTH * early.memory, MAX_GROWTH_BYTES)
    left = f"{last.tasks - first.tasks} tasks and {last.files - first.files} files left"
    return Line(
        f"{count:,} {name}",
        f"{early.memory / MIB:.1f} MiB at {EARLY:.0%}, {grown / MIB:+.2f} at the end; {left}; {count / seconds:,.0f} a "
        "second",
        f"{bound / MIB:+.2f} MiB, 0 left",
        grown <= bound and last.tasks <= first.tasks and last.files <= first.files,
    )


async def run_connects(server: Server, scheme: str, count: int) -> Line:
    """Open and close sessions, a few at a time."""
    first, began, done = server.look(), time.monotonic(), 0
    early: Held | None = None

    async def come_and_go() -> None:
        nonlocal done, early
        while done < count:
            done += 1
            async with server.connect(scheme, "idle"):
                pass
            if early is None and done >= EARLY * count:
                early = server.look()

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(come_and_go)
    seconds = time.monotonic() - began
    last = await server.rest(first.tasks)
    assert early is not None
    return growth(f"sessions, {SCHEMES[scheme]}", early, last, first, last, seconds, done)


async def run_groups(server: Server, scheme: str, count: int) -> Line:
    """Read groups of one frame in one session."""
    first, began, done = server.look(), time.monotonic(), 0
    early: Held | None = None
    async with server.connect(scheme, "groups") as session:
        await wait_announced(session, PATH)
        async with session.subscribe(PATH, "data", max_age=60) as subscription:
            async for group in subscription:
                done += len(await group.read_all())
                if early is None and done >= EARLY * count:
                    early = server.look()
                if done >= count:
                    break
            seconds = time.monotonic() - began
            late = server.look()
    assert early is not None
    return growth(f"groups, {SCHEMES[scheme]}", early, late, first, await server.rest(first.tasks), seconds, done)


async def run_idle(server: Server, scheme: str, count: int) -> Line:
    """Hold sessions that do nothing."""
    first = server.look()
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(server.connect(scheme, "idle"))
        held = server.look()
    each = (held.memory - first.memory) / count / 1024
    accepted = held.sessions - first.sessions
    await server.rest(first.tasks)
    return Line(
        f"{count:,} idle sessions, {SCHEMES[scheme]}",
        f"{accepted:,} open, {each:.0f} KiB each in the server",
        f"all open, {MAX_IDLE_KIB} KiB",
        accepted == count and each <= MAX_IDLE_KIB,
    )


async def run_active(server: Server, scheme: str, count: int) -> Line:
    """Hold sessions that receive five groups a second each, and time the groups."""
    seconds: list[float] = []
    first = server.look()
    timed = trio.Event()

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        async with server.connect(scheme, "active") as session:
            await wait_announced(session, PATH)
            async with session.subscribe(PATH, "data") as subscription:
                task_status.started()
                async for group in subscription:
                    (frame,) = await group.read_all()
                    if timed.is_set():
                        seconds.append((time.perf_counter_ns() - int(bytes(frame))) / 1e9)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            await nursery.start(read)
        # As the page on many sessions says.
        server.look("freeze")
        gc.collect()
        gc.freeze()
        timed.set()
        await trio.sleep(LIVE_SECONDS)
        nursery.cancel_scope.cancel()
    await server.rest(first.tasks)
    p99 = statistics.quantiles(seconds, n=100)[98]
    expected = count * LIVE_SECONDS / LIVE_INTERVAL
    return Line(
        f"{count:,} sessions, 5 groups a second each, {SCHEMES[scheme]}",
        f"{len(seconds) / expected:.1%} of {expected:,.0f} groups, p99 {p99 * 1e3:.0f} ms",
        f"97%, {MAX_P99_SECONDS * 1e3:.0f} ms",
        len(seconds) >= 0.97 * expected and p99 <= MAX_P99_SECONDS,
    )


RUNS: dict[str, tuple[Callable[[Server, str, int], Awaitable[Line]], int]] = {
    "connects": (run_connects, 43_200),
    "groups": (run_groups, 500_000),
    "idle": (run_idle, 1_000),
    "active": (run_active, 200),
}
"""Each run and its count, which both transports have: 86,400 connects are one in each second of a day."""


def main() -> int:
    """Run what is named, each with a server of its own, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"what to run: {', '.join(RUNS)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count (default: 1)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
        return 0
    if unknown := [name for name in arguments.runs if name not in RUNS]:
        parser.error(f"no run {unknown[0]!r}; there are {', '.join(RUNS)}")
    failed = False
    for name in arguments.runs or RUNS:
        function, count = RUNS[name]
        for scheme in SCHEMES:
            with child("bench.soak", "--serve") as process:
                line = trio.run(function, Server(process), scheme, max(10, int(count * arguments.scale)))
            failed |= not line.held
            print(f"{'ok  ' if line.held else 'FAIL'} {line.name}: {line.figure} (bound: {line.bound})", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
