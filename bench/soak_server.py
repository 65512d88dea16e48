"""The server of the long runs, in a process of its own: `python -m bench.soak_server`.

It imports public names only, so that its memory is that of the library.
"""

from __future__ import annotations

import gc
import os
import sys
import time

import trio

import moqt_trio as moqt

from .library import PATH, publish_single_frames
from .workloads import SMALL_FRAME_BYTES, say

LIVE_INTERVAL = 0.2
"""Seconds between the groups of the live track."""


async def publish_live(track: moqt.Track) -> None:
    """Write the time five times a second on average, however long a write takes."""
    due = trio.current_time()
    while True:
        await track.write(str(time.perf_counter_ns()).encode())
        due += LIVE_INTERVAL
        await trio.sleep_until(due)


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


if __name__ == "__main__":
    trio.run(serve)
