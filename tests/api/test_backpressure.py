"""Backpressure from application to application, over raw QUIC and WebTransport, in bytes."""

from __future__ import annotations

import contextlib
import tracemalloc
from functools import partial

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
DEFAULT = moqt.Limits()
SMALL = moqt.Limits(
    stream_window=32 * 1024,
    connection_window=256 * 1024,
    send_high=32 * 1024,
    reliable_backlog=64 * 1024,
    max_frame=2 * 1024 * 1024,
)
LIMITS = pytest.mark.parametrize("limits", [DEFAULT, SMALL], ids=["default", "small"])
PAYLOAD = bytes(4096)
CHUNK = 64 * 1024
"""Bytes that are encoded in one go: how far a send buffer may pass its high mark."""


@contextlib.asynccontextmanager
async def publishing(scheme: str, limits: moqt.Limits, broadcast: moqt.Broadcast, *, clients: int = 1):
    """Serve a broadcast on each session of a listener; yield so many clients' sessions."""

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(30))
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, limits=limits))
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        sessions = []
        for _ in range(clients):
            session = await stack.enter_async_context(
                moqt.connect(url, fingerprint=listener.fingerprint, limits=limits)
            )
            async with session.announcements() as announcements:
                await announcements.receive()
            sessions.append(session)
        yield sessions
        nursery.cancel_scope.cancel()


async def at_rest(count) -> int:
    """Wait until a number of bytes no longer grows, and return it."""
    last = -1
    quiet = 0
    while quiet < 5:
        await trio.sleep(0.02)
        now = count()
        quiet = quiet + 1 if now == last else 0
        last = now
    return last


@attrs.define
class Writer:
    """Writes one endless group until it is cancelled; counts what it wrote."""

    track: moqt.Track
    written: int = 0

    async def run(self) -> None:
        await self.track.wait_subscribed()
        async with self.track.open_group() as group:
            while True:
                await group.send(PAYLOAD)
                self.written += len(PAYLOAD)


async def read_some(subscription: moqt.Subscription, count: int) -> int:
    """Read at least so many bytes of the next group."""
    total = 0
    async for frame in await subscription.receive():
        total += len(frame)
        if total >= count:
            break
    return total


@SCHEMES
@LIMITS
async def test_an_application_that_stops_reading(scheme, limits):
    """A group that is not read stops its publisher at the stream's window; other tracks and other sessions run on."""
    broadcast = moqt.Broadcast(limits=limits)
    stalled, beside, apart = (
        Writer(broadcast.track(name, delivery="reliable")) for name in ("stalled", "beside", "apart")
    )
    enough = 2 * limits.connection_window
    got: dict[str, int] = {}
    async with (
        publishing(scheme, limits, broadcast, clients=2) as (session, neighbour),
        session.subscribe("b", "stalled") as unread,
        session.subscribe("b", "beside") as one,
        neighbour.subscribe("b", "apart") as two,
        trio.open_nursery() as nursery,
    ):

        async def read(name: str, subscription: moqt.Subscription) -> None:
            got[name] = await read_some(subscription, enough)

        nursery.start_soon(stalled.run)
        stopped = await at_rest(lambda: stalled.written)
        in_window = unread.statistics().bytes_received
        # Beside the window: what the send buffer takes before a writer waits, and the backlog that the track may have.
        kept = limits.send_high + limits.reliable_backlog + CHUNK + 2 * len(PAYLOAD)
        assert limits.stream_window - 2 * len(PAYLOAD) <= in_window <= limits.stream_window
        assert in_window <= stopped <= in_window + kept
        nursery.start_soon(beside.run)
        nursery.start_soon(apart.run)
        async with trio.open_nursery() as readers:
            readers.start_soon(read, "beside", one)
            readers.start_soon(read, "apart", two)
        print(
            f"\n{scheme}: unread group: {in_window} B in a window of {limits.stream_window} B, its writer stopped at "
            f"{stalled.written} B; meanwhile {got['beside']} B on the same session, {got['apart']} B on another"
        )
        assert stalled.written == stopped
        # Reading gives credit, and the writer goes on from where it stopped.
        assert await read_some(unread, 2 * stopped) >= 2 * stopped
        assert stalled.written > stopped
        nursery.cancel_scope.cancel()
    assert min(got.values()) >= enough


@SCHEMES
async def test_a_live_writer_with_a_stalled_subscriber_is_bounded_in_memory(scheme):
    """Writing far more than is read costs the cache and the windows, not what was written."""
    limits = attrs.evolve(SMALL, cache_bytes=512 * 1024, live_backlog=256 * 1024)
    broadcast = moqt.Broadcast(limits=limits)
    track = broadcast.track("t", max_age=0.5)
    total = 10 * 1024 * 1024
    payload = bytes(16 * 1024)
    async with publishing(scheme, limits, broadcast) as (session,), session.subscribe("b", "t") as subscription:
        await track.wait_subscribed()
        tracemalloc.start()
        try:
            for _ in range(total // len(payload) // 4):
                async with track.open_group() as group:
                    for _ in range(4):
                        await group.send(bytes(payload))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        print(f"\n{scheme}: wrote {total} B live to a stalled subscriber; peak {peak} B of memory")
        assert subscription.statistics().bytes_received <= limits.connection_window
        assert session.closed is None
    bound = limits.cache_bytes + limits.live_backlog + 4 * limits.connection_window
    assert peak < bound + 2 * 1024 * 1024


@SCHEMES
@LIMITS
async def test_a_frame_larger_than_the_window(scheme, limits):
    """A frame of 1 MiB arrives through a smaller stream window as soon as a reader waits for it, and not before."""
    broadcast = moqt.Broadcast(limits=limits)
    track = broadcast.track("t", delivery="reliable")
    frame = bytes(range(256)) * 4096
    async with publishing(scheme, limits, broadcast) as (session,), session.subscribe("b", "t") as subscription:
        await track.wait_subscribed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(track.write, frame)
            group = await subscription.receive()
            waiting = await at_rest(lambda: session.statistics().transport.bytes_received)
            assert waiting < limits.stream_window + 64 * 1024
            with pytest.raises(trio.WouldBlock):
                group.receive_nowait()
            with trio.fail_after(10):
                assert await group.receive() == frame
                assert await group.read_all() == []


@SCHEMES
async def test_groups_that_are_never_read_give_their_credit_back(scheme):
    """Taking groups without reading them costs the peer's credit only until they are closed or the block is left."""
    broadcast = moqt.Broadcast(limits=SMALL)
    track = broadcast.track("t", delivery="reliable")
    payload = bytes(8 * 1024)
    rounds = 8
    async with publishing(scheme, SMALL, broadcast) as (session,):
        with trio.fail_after(10):
            for _ in range(rounds):
                async with session.subscribe("b", "t", max_age=0) as subscription:
                    await track.wait_subscribed()
                    for _ in range(8):
                        await track.write(payload)
                        await subscription.receive()
                await track.wait_unsubscribed()
            async with session.subscribe("b", "t", max_age=0) as subscription:
                await track.wait_subscribed()
                for _ in range(rounds * 8):
                    await track.write(payload)
                    (await subscription.receive()).close()
            async with session.subscribe("b", "t", max_age=0) as subscription:
                await track.wait_subscribed()
                await track.write(payload)
                assert await (await subscription.receive()).read_all() == [payload]
    assert rounds * 8 * len(payload) > SMALL.connection_window
