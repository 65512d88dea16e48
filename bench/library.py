"""The same workloads with moqt_trio's public API, written as an application writes them.

Throughput is measured in `reliable` delivery, where every frame arrives; the ping-pong in `live` delivery. It imports
public names only.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

import moqt_trio as moqt

from .workloads import (
    BULK_FRAME_BYTES,
    BULK_FRAMES_PER_GROUP,
    SMALL_FRAME_BYTES,
    SMALL_FRAMES_PER_GROUP,
    Window,
    child_arguments,
    round_trip_report,
    run_child,
    say,
    until_stdin_ends,
)

PATH = "bench"


async def publish_groups(track: moqt.Track, frame: bytes, frames_per_group: int) -> None:
    """Write groups of several frames while there are subscribers, and wait only where there is no room."""
    while track.subscribers:
        async with track.open_group() as group:
            for _ in range(frames_per_group):
                try:
                    group.send_nowait(frame)
                except trio.WouldBlock:
                    await group.send(frame)


async def publish_single_frames(track: moqt.Track, frame: bytes) -> None:
    """Write groups of one frame while there are subscribers, and wait only where there is no room."""
    while track.subscribers:
        try:
            track.write_nowait(frame)
        except trio.WouldBlock:
            await track.write(frame)


async def wait_announced(session: moqt.Session, path: str) -> None:
    """Wait until the peer announces a broadcast: before that, a subscription is refused."""
    async with session.announcements(path) as announcements:
        await anext(announcements)


async def answer_pings(session: moqt.Session) -> None:
    """Answer every frame of the client with a group of its own."""
    broadcast = moqt.Broadcast()
    pong = broadcast.track("pong")
    async with session.publish("pong", broadcast):
        await wait_announced(session, "ping")
        async with session.subscribe("ping", "ping") as pings:
            async for group in pings:
                async for frame in group:
                    await pong.write(frame)


def handler(workload: str) -> Callable[[moqt.SessionRequest], Awaitable[None]]:
    """Return the handler of a workload's session."""

    async def serve_session(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            if workload == "memory":
                await session.wait_closed()
            elif workload == "pingpong":
                await answer_pings(session)
            else:
                broadcast = moqt.Broadcast()
                track = broadcast.track("data", delivery="reliable")
                async with session.publish(PATH, broadcast):
                    await track.wait_subscribed()
                    if workload == "bulk":
                        await publish_groups(track, os.urandom(BULK_FRAME_BYTES), BULK_FRAMES_PER_GROUP)
                    elif workload == "frames":
                        await publish_groups(track, os.urandom(SMALL_FRAME_BYTES), SMALL_FRAMES_PER_GROUP)
                    else:
                        await publish_single_frames(track, os.urandom(SMALL_FRAME_BYTES))

    return serve_session


async def publish(workload: str) -> None:
    """Serve until standard input ends."""
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/bench": handler(workload)})
        start = partial(moqt.serve, router, "127.0.0.1", 0, versions=moqt.version_names(opt_in=True))
        listener = await nursery.start(start)
        url = next(url for url in listener.urls if url.startswith("moqt:"))
        say(port=int(url.split(":")[2].partition("/")[0]), fingerprint=listener.fingerprint)
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


async def count_frames(group: moqt.GroupReader) -> int:
    """Return the number of a group's frames, read in batches as they arrive."""
    count = 0
    while True:
        try:
            count += len(await group.receive_batch())
        except trio.EndOfChannel:
            return count


async def count_track(session: moqt.Session, workload: str, window: Window) -> dict[str, float]:
    """Return the rate at which the track's groups are read, one after the other."""
    amount = 0

    async def read() -> None:
        nonlocal amount
        async with session.subscribe(PATH, "data", max_age=60) as subscription:
            async for group in subscription:
                if workload == "bulk":
                    async for frame in group:
                        amount += len(frame)
                elif workload == "frames":
                    amount += await count_frames(group)
                else:
                    async for _ in group:
                        amount += 1

    await wait_announced(session, PATH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        rate = await window.rate(lambda: amount)
        nursery.cancel_scope.cancel()
    return {"value": rate * 8 / 1e6 if workload == "bulk" else rate}


async def ping(session: moqt.Session, window: Window) -> dict[str, float]:
    """Return the times of round trips, one after the other."""
    payload = os.urandom(SMALL_FRAME_BYTES)
    broadcast = moqt.Broadcast()
    track = broadcast.track("ping")
    seconds: list[float] = []
    await wait_announced(session, "pong")
    async with session.publish("ping", broadcast), session.subscribe("pong", "pong") as pongs:
        await track.wait_subscribed()
        start = time.perf_counter()
        while (sent := time.perf_counter()) < start + window.warmup + window.duration:
            await track.write(payload)
            group = await anext(pongs)
            await anext(group)
            if sent > start + window.warmup:
                seconds.append(time.perf_counter() - sent)
    return round_trip_report(seconds)


@asynccontextmanager
async def connected(
    scheme: str, port: int, fingerprint: str, path: str = "bench", version: str = "moq-lite-06"
) -> AsyncIterator[moqt.Session]:
    """Open a session with the publisher."""
    url = f"{scheme}://127.0.0.1:{port}/{path}"
    async with moqt.connect(url, versions=[version], fingerprint=fingerprint) as session:
        yield session


async def subscribe(workload: str, version: str, window: Window, scheme: str, port: int, fingerprint: str) -> None:
    """Measure one workload and report the figures."""
    async with connected(scheme, port, fingerprint, version=version) as session:
        if workload == "pingpong":
            say(**await ping(session, window))
        else:
            say(**await count_track(session, workload, window))


async def hold_sessions(scheme: str, port: int, fingerprint: str, count: int) -> None:
    """Open sessions, report when all are open, and keep them open until standard input ends."""
    async with trio.open_nursery() as nursery:

        async def hold(*, task_status: trio.TaskStatus[None]) -> None:
            async with connected(scheme, port, fingerprint):
                task_status.started()
                await trio.sleep_forever()

        for _ in range(count):
            await nursery.start(hold)
        say(sessions=count)
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run one side of one workload."""
    arguments = child_arguments("One side of one workload with moqt_trio.", extra_workloads=("memory",))
    where = ("https" if arguments.webtransport else "moqt", arguments.port, arguments.fingerprint)
    window = Window(arguments.warmup, arguments.duration)
    if arguments.role == "publish":
        run_child(arguments.profile, publish, arguments.workload)
    elif arguments.workload == "memory":
        run_child(arguments.profile, hold_sessions, *where, arguments.sessions)
    else:
        run_child(arguments.profile, subscribe, arguments.workload, arguments.version, window, *where)


if __name__ == "__main__":
    main()
