"""One end of sessions in a process of its own: it publishes, reads what the other end publishes, and reports.

`python -m tests.faults.network_end server ADDRESS SECONDS` serves; with `client` it opens a session over each
transport. SECONDS is the idle timeout. Each event is a line of JSON, with the time of the machine's monotonic clock.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial

import trio

import moqt_trio as moqt

PORT = 4433
SCHEMES = ["moqt", "https"]


def report(event: str, **values: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, "time": time.monotonic(), **values}), flush=True)


def tasks() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def publish(session: moqt.Session) -> None:
    """Send a frame ten times a second until the session has ended."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session.publish("b", broadcast):
        while session.closed is None:
            await track.write(bytes(500))
            await trio.sleep(0.1)


async def read(session: moqt.Session) -> None:
    """Read until the session has ended, and report the first group."""
    first = True
    try:
        async with session.subscribe("b", "t") as subscription:
            async for group in subscription:
                await group.read_all()
                if first:
                    report("reading")
                    first = False
    except moqt.SessionClosed:
        report("raised")


async def use(session: moqt.Session) -> None:
    """Use a session until it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, session)
        nursery.start_soon(read, session)
        error = await session.wait_closed()
        report("ended", kind=type(error).__name__, reason=getattr(error, "reason", ""))


async def handle(request: moqt.SessionRequest) -> None:
    """Use a session of a client."""
    async with request.accept() as session:
        await use(session)


async def connect(scheme: str, address: str, limits: moqt.Limits) -> None:
    """Use a session with the server."""
    async with moqt.connect(f"{scheme}://{address}:{PORT}/", verify=False, limits=limits) as session:
        await use(session)


async def until_alone(before: int) -> None:
    """Report once there are no more tasks than before the sessions."""
    with trio.move_on_after(10):
        while tasks() > before:  # noqa: ASYNC110 - nothing announces the end of a task of another nursery
            await trio.sleep(0.01)
    report("alone", tasks=tasks(), before=before)


async def main(role: str, address: str, seconds: float) -> None:
    """Run one end."""
    limits = moqt.Limits(idle_timeout=seconds)
    async with trio.open_nursery() as nursery:
        if role == "server":
            await nursery.start(partial(moqt.serve, handle, address, PORT, limits=limits))
        before = tasks()
        report("ready")
        if role == "client":
            for scheme in SCHEMES:
                nursery.start_soon(connect, scheme, address, limits)
        # The test says when the sessions have ended.
        await trio.to_thread.run_sync(sys.stdin.readline)
        await until_alone(before)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]))
