"""A server in a process of its own, and its memory and CPU alone: what a flood costs, without the peer that sends it.

`python -m tests.faults.served` is the server. It publishes the broadcast `b`, whose track `t` has an open group and
whose track `kept` has a group to fetch, and reads the announcements of each client. It answers each line that it is
sent with its figures.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

import moqt_trio as moqt
from tests.faults.state_peer import open_peer
from tests.interop.processes import Child
from tests.machine import seconds

MIB = 1 << 20


@attrs.frozen
class Figures:
    """What a server's process has used.

    Attributes:
        resident: Bytes of memory now.
        peak: The most that it had since the figures were asked for last.
        cpu: Seconds of CPU so far.
        sessions: Sessions that run now.
        half_open: Handshakes that are not complete now.
        retried: Clients that had to prove their address so far.
        accepted: Handshakes that were completed so far.
        announced: Broadcasts that are announced to the server now.
        changes: Changes of announcements that the server has read.
        tasks: Tasks that are alive.
        files: Files and sockets that are open.
    """

    resident: int
    peak: int
    cpu: float
    sessions: int
    half_open: int
    retried: int
    accepted: int
    announced: int
    changes: int
    tasks: int
    files: int


class ServedProcess:
    """The server as the test sees it.

    Attributes:
        port: Its port.
        before: Its figures before the test.
    """

    def __init__(self, child: Child, port: int) -> None:
        self.port = port
        self._child = child
        self.before: Figures

    async def figures(self) -> Figures:
        """Return what it has used by now, after it has collected its garbage."""
        return await self._ask("figures")

    async def kept(self) -> Figures:
        """Return what it has used by now, after it has given the memory that is free back to the system."""
        return await self._ask("kept")

    async def glance(self) -> Figures:
        """Return what it has used by now, garbage included; this costs it little."""
        return await self._ask("glance")

    async def _ask(self, line: str) -> Figures:
        self._child.tell(line)
        event = await trio.to_thread.run_sync(self._child.wait_event, "figures")
        event.pop("event")
        return Figures(**event)

    async def at_rest(self) -> Figures:
        """Wait until it does next to nothing, for ten seconds at the most; return what it has used by then."""
        found = await self.figures()
        little = seconds(0.1)
        with trio.move_on_after(10):
            while True:
                await trio.sleep(0.5)
                before, found = found, await self.figures()
                if found.cpu - before.cpu < little:
                    break
        return found

    async def grown(self) -> int:
        """Return by how many bytes the process was larger at its peak than before the test."""
        return (await self.figures()).peak - self.before.resident

    def neighbour(self, version: str = "moq-lite-06", scheme: str = "moqt"):
        """Open an ordinary session, as another client has it."""
        return moqt.connect(f"{scheme}://127.0.0.1:{self.port}/a", versions=[version], verify=False)

    async def check_next_client(self, *schemes: str) -> None:
        """Return when a client that comes now has had an answer, within a second, over each scheme's transport."""
        for scheme in schemes or ("moqt",):
            with trio.fail_after(seconds(1)):
                async with self.neighbour(scheme=scheme) as session:
                    await fetch_kept(session)

    def peer(self, transport: str, version: str):
        """Open a connection whose bytes the test writes by hand."""
        return open_peer(transport, version, self.port)


async def fetch_kept(session: moqt.Session) -> None:
    """Make one request that is answered in full: it costs one round trip, and no token of the server's bucket."""
    async with session.fetch("b", "kept", 0) as group:
        assert await group.read_all() == [b"kept"]


async def round_trips(session: moqt.Session, seconds: float) -> list[float]:
    """Fetch one group after the other for some seconds; return how long each took, the shortest first."""
    times = []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        began = trio.current_time()
        await fetch_kept(session)
        times.append(trio.current_time() - began)
    return sorted(times)


@contextlib.asynccontextmanager
async def served(*, reads: bool = True, paths: int = 1, **limits: float) -> AsyncIterator[ServedProcess]:
    """Run a server in a process of its own.

    Args:
        reads: False for a server that asks for announcements and reads none.
        paths: The broadcasts that it publishes on each session.
        limits: Its limits where they are not the defaults.
    """
    options = {"limits": limits, "reads": reads, "paths": paths}
    with Child("-m", "tests.faults.served", json.dumps(options)) as child:
        port = (await trio.to_thread.run_sync(child.wait_event, "ready"))["port"]
        process = ServedProcess(child, port)
        for scheme in ("moqt", "https"):
            # What is made once is made by the first sessions.
            async with process.neighbour(scheme=scheme) as session:
                await fetch_kept(session)
        await process.figures()
        process.before = await process.figures()
        yield process


def _memory() -> tuple[int, int]:
    """Return the process's resident bytes and their peak, and have the peak begin anew."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found = tuple(int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return found[0], found[1]


def give_back() -> None:
    """Give the memory that is free back to the system, where the C library can: a flood leaves a heap of its size."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Server:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._limits = moqt.Limits(**options["limits"])
        self._open: list[moqt.Announcements] = []
        self._changes = 0
        self._broadcast = moqt.Broadcast()

    async def run(self) -> None:
        self._broadcast.track("t", max_age=3600).open_group(0)
        self._broadcast.track("kept", max_age=3600).write_nowait(b"kept")
        async with trio.open_nursery() as nursery:
            router = moqt.Router({"/a": self._handle}, default="/a")
            serve = partial(moqt.serve, router, "localhost", 0, limits=self._limits)
            listener = await nursery.start(serve)
            print(json.dumps({"event": "ready", "port": listener.port}), flush=True)
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                if line.strip() != "glance":
                    gc.collect()
                if line.strip() == "kept":
                    give_back()
                print(json.dumps({"event": "figures", **self._figures(listener)}), flush=True)
            nursery.cancel_scope.cancel()

    def _figures(self, listener: moqt.Listener) -> dict[str, float]:
        resident, peak = _memory()
        found = listener.statistics()
        return {
            "resident": resident,
            "peak": peak,
            "cpu": time.process_time(),
            "sessions": found.sessions,
            "half_open": found.half_open,
            "retried": found.retried,
            "accepted": found.connections_accepted,
            "announced": sum(len(announcements.active) for announcements in self._open),
            "changes": self._changes,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "files": len(os.listdir("/proc/self/fd")),
        }

    async def _handle(self, request: moqt.SessionRequest) -> None:
        async with request.accept() as session, trio.open_nursery() as nursery:
            for number in range(self._options["paths"]):
                await nursery.start(self._publish, session, "b" if not number else f"{number:0100}")
            nursery.start_soon(self._announcements, session)
            await session.wait_closed()
            nursery.cancel_scope.cancel()

    async def _publish(self, session: moqt.Session, path: str, task_status: trio.TaskStatus) -> None:
        async with session.publish(path, self._broadcast):
            task_status.started()
            await trio.sleep_forever()

    async def _announcements(self, session: moqt.Session) -> None:
        try:
            async with session.announcements() as announcements:
                self._open.append(announcements)
                try:
                    if not self._options["reads"]:
                        await trio.sleep_forever()
                    async for _ in announcements:
                        self._changes += 1
                finally:
                    self._open.remove(announcements)
        except moqt.MoqtError:
            # The peer broke its list, or left.
            pass


if __name__ == "__main__":
    trio.run(_Server(json.loads(sys.argv[1])).run)
