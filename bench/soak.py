"""Long runs, printed as a table: does a server give back what sessions, groups and floods took: `python -m bench.soak`.

The server is a process of its own, and the client is this one. The server's memory is read after a fifth of each run
and at its end: what was made once is there by then, and what is kept of each session or group has grown by four fifths.
At the end its tasks and its open files have to be as many as at the beginning. The floods are those of the tests: see
`bench.floods`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

import trio

from .children import Child, child
from .floods import FLOODS, run_flood
from .kept import EARLY, REST_SECONDS, Held, Line, growth
from .library import PATH, connected, wait_announced
from .soak_server import LIVE_INTERVAL

if TYPE_CHECKING:
    import moqt_trio as moqt

SCHEMES = {"moqt": "raw QUIC", "https": "WebTransport"}
MAX_IDLE_KIB = 250
MAX_P99_SECONDS = 0.1
CLIENTS = 8
LIVE_SECONDS = 30
FLOOD_SECONDS = 30


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
        # The groups that were written meanwhile tell of these pauses alone.
        await trio.sleep(1)
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
    known = [*RUNS, *FLOODS]
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"what to run: {', '.join(known)} (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=FLOOD_SECONDS, help=f"how long each flood lasts (default: {FLOOD_SECONDS})"
    )
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.runs if name not in known]:
        parser.error(f"no run {unknown[0]!r}; there are {', '.join(known)}")
    failed = False
    for name in arguments.runs or known:
        for scheme, transport in SCHEMES.items():
            if name in FLOODS:
                if scheme not in FLOODS[name].schemes:
                    continue
                line = trio.run(run_flood, name, scheme, transport, arguments.seconds)
            else:
                function, count = RUNS[name]
                with child("bench.soak_server") as process:
                    line = trio.run(function, Server(process), scheme, max(10, int(count * arguments.scale)))
            failed |= not line.held
            print(line, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
