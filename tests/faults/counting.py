"""Servers and clients that send each other numbered groups all the time, as processes that can be killed and stopped.

`python -m tests.faults.counting client URL LIMITS` and `… server PORT LIMITS` are the processes; LIMITS is a JSON
object. They print a JSON line when something happens, and the test uses the same classes for its own side. A server
that reads a line finishes its numbers: each client gets the rest, sends the rest of its own, and leaves.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

import moqt_trio as moqt
from tests.interop.processes import Child

PERIOD = 0.1
"""Seconds between two groups: a peer that stops for some seconds misses fewer than `Limits.live_backlog_groups`."""
CLIENT, SERVER, TRACK = "client", "server", "numbers"


def _discard(event: str, **values: object) -> None:
    """Say nothing: the test looks at the objects themselves."""


def _print(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


class Numbers:
    """A broadcast that gets a group with the next number in each `PERIOD`, until it is finished.

    Attributes:
        broadcast: The broadcast.
        sent: How many groups were written.
    """

    def __init__(self) -> None:
        self.broadcast = moqt.Broadcast()
        self.sent = 0
        self._track = self.broadcast.track(TRACK, max_age=60)

    def finish(self) -> None:
        """Finish the track: no further group is written."""
        self._track.finish()

    async def run(self) -> None:
        """Write until it is finished."""
        while not self._track.ended:
            # The clock is the same in every process of the machine.
            self._track.write_nowait(json.dumps([self.sent, time.monotonic()]).encode())
            self.sent += 1
            await trio.sleep(PERIOD)


class Side:
    """One side of a session: it publishes its numbers, and reads those of the other side until they are finished.

    Args:
        own: The path of its own broadcast.
        other: The path of the other side's.
        numbers: As below.
        tell: Called when the other side has announced itself, with its first number, and with the end.

    Attributes:
        numbers: What it sends.
        received: The numbers that it read.
        slowest: Seconds from the writing of a number to its reading, at the most.
        running: Set with the first number.
        ended: Set once the numbers of the other side are finished, or the session is lost.
        end: How the session was lost.
    """

    def __init__(self, own: str, other: str, numbers: Numbers, tell: Callable[..., None] = _discard) -> None:
        self.numbers = numbers
        self.received: list[int] = []
        self.slowest = 0.0
        self.running = trio.Event()
        self.ended = trio.Event()
        self.end: moqt.MoqtError | None = None
        self._own = own
        self._other = other
        self._tell = tell

    async def run(self, session: moqt.Session) -> None:
        """Publish and read until the other side's numbers are finished, or the session is lost."""
        try:
            async with session.publish(self._own, self.numbers.broadcast):
                await session.wait_announced(self._other)
                self._tell("announced")
                async with session.subscribe(self._other, TRACK, max_age=60, ordered=True) as subscription:
                    async for group in subscription:
                        (frame,) = await group.read_all()
                        self._note(*json.loads(frame))
                self.numbers.finish()
        except (moqt.SessionClosed, moqt.StreamReset):
            self.end = await session.wait_closed()
        by_peer = isinstance(self.end, moqt.SessionClosed) and self.end.by_peer
        how = None if self.end is None else str(self.end)
        self._tell("ended", how=how, by_peer=by_peer, received=self.received, sent=self.numbers.sent)
        self.ended.set()

    def _note(self, number: int, written: float) -> None:
        self.received.append(number)
        self.slowest = max(self.slowest, time.monotonic() - written)
        if not self.running.is_set():
            self._tell("running")
            self.running.set()


class CountingServer:
    """A server that sends the same numbers to all of its clients, and reads those of each.

    Args:
        tell: As for each `Side`.

    Attributes:
        numbers: Its numbers.
        sides: The sessions that it had, the oldest first.
    """

    def __init__(self, tell: Callable[..., None] = _discard) -> None:
        self.numbers = Numbers()
        self.sides: list[Side] = []
        self._tell = tell

    async def handle(self, request: moqt.SessionRequest) -> None:
        """Called with each session that a client asks for."""
        async with request.accept() as session:
            side = Side(SERVER, CLIENT, self.numbers, self._tell)
            self.sides.append(side)
            await side.run(session)
            await session.wait_closed()

    async def run(
        self, port: int, limits: moqt.Limits, *, task_status: trio.TaskStatus[moqt.Listener] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve and count until cancelled."""
        async with trio.open_nursery() as nursery:
            router = moqt.Router({"/a": self.handle}, default="/a")
            listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", port, limits=limits))
            nursery.start_soon(self.numbers.run)
            task_status.started(listener)


async def run_client(url: str, limits: moqt.Limits, side: Side) -> None:
    """Open a session, and count on it until the server's numbers are finished, or the session is lost."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.numbers.run)
        async with moqt.connect(url, verify=False, limits=limits) as session:
            await side.run(session)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def counting_server(**limits: float) -> AsyncIterator[tuple[CountingServer, moqt.Listener]]:
    """Run a server in the test's own process for as long as the block lasts."""
    server = CountingServer()
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(server.run, 0, moqt.Limits(**limits))
        yield server, listener
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def counting_client(url: str, **limits: float) -> AsyncIterator[Side]:
    """Run a client in the test's own process; the block is entered with its first number, and waits for its end."""
    side = Side(CLIENT, SERVER, Numbers())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_client, url, moqt.Limits(**limits), side)
        await side.running.wait()
        yield side


def client_process(url: str, **limits: float) -> Child:
    """Return a client in a process of its own."""
    return Child("-m", "tests.faults.counting", "client", url, json.dumps(limits))


def server_process(port: int = 0, **limits: float) -> Child:
    """Return a server in a process of its own; it prints its port first."""
    return Child("-m", "tests.faults.counting", "server", str(port), json.dumps(limits))


def is_whole(received: list[int], sent: int) -> bool:
    """Return whether a side got every number once, from its first one to the last that was sent."""
    return bool(received) and sorted(received) == list(range(min(received), sent))


async def happens(child: Child, event: str) -> dict[str, Any]:
    """Wait until a process says that something happened."""
    return await trio.to_thread.run_sync(child.wait_event, event, abandon_on_cancel=True)


# -- the processes ---------------------------------------------------------------------------------------------


async def _client(url: str, limits: moqt.Limits) -> None:
    await run_client(url, limits, Side(CLIENT, SERVER, Numbers(), _print))


async def _server(port: str, limits: moqt.Limits) -> None:
    server = CountingServer(_print)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(server.run, int(port), limits)
        _print("listening", port=listener.port)
        await trio.to_thread.run_sync(sys.stdin.readline)
        server.numbers.finish()


def main(role: str, where: str, limits: str) -> None:
    """Run a process."""
    trio.run(_client if role == "client" else _server, where, moqt.Limits(**json.loads(limits)))


if __name__ == "__main__":
    main(*sys.argv[1:])
