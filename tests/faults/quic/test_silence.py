"""A peer that falls silent: how soon each side notices, with the default limits and in virtual time."""

from __future__ import annotations

from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.faults.udp_proxy import udp_proxy

IDLE = moqt.Limits().idle_timeout
QUIET = 5.0
"""Seconds between the last packets of an idle session and the fault: less than `Limits.keep_alive`."""


async def publish(session: moqt.Session) -> None:
    """Send a frame each half second."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("track")
    async with session.publish("path", broadcast):
        while True:
            await track.write(bytes(500))
            await trio.sleep(0.5)


async def subscribe(session: moqt.Session) -> None:
    async with session.subscribe("path", "track") as subscription:
        async for group in subscription:
            await group.read_all()


class Side:
    """One side of a session: what it does, and when the session ended for it."""

    def __init__(self, name: str, sender: str) -> None:
        self.name = name
        self.act = None if sender == "nobody" else publish if sender == name else subscribe
        self.at = 0.0
        self.ended = trio.Event()

    async def run(self, session: moqt.Session) -> None:
        async with trio.open_nursery() as nursery:
            if self.act is not None:
                nursery.start_soon(self.until_closed, session)
            await session.wait_closed()
            self.at = trio.current_time()
            self.ended.set()
            nursery.cancel_scope.cancel()

    async def until_closed(self, session: moqt.Session) -> None:
        assert self.act is not None
        try:
            await self.act(session)
        except (moqt.SessionClosed, moqt.StreamReset):
            await trio.sleep_forever()


@pytest.mark.parametrize("sender", ["nobody", "client", "server"])
@pytest.mark.parametrize("lost", ["to the server", "to the client", "both ways"])
@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_both_sides_notice_within_the_idle_timeout(mock_clock, scheme, lost, sender):
    """A blackhole, one way or both, as a crash is one, ends the session on both sides in 30 s after the last packet."""
    mock_clock.rate = 1.0
    server, client = Side("server", sender), Side("client", sender)
    arrived = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            arrived.set()
            await server.run(session)

    def forward(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
        dropped = lost == "both ways" or from_client is (lost == "to the server")
        return [] if dropped else [(0.0, data)]

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
        async with udp_proxy(listener.port) as proxy:
            url = f"{scheme}://127.0.0.1:{proxy.port}/"
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                nursery.start_soon(client.run, session)
                await arrived.wait()
                mock_clock.rate = 0.0
                mock_clock.autojump_threshold = 0.002
                await trio.sleep(QUIET)
                start = trio.current_time()
                proxy.forward = forward
                await client.ended.wait()
                await server.ended.wait()
            print(f"\nclient {client.at - start:.1f} s, server {server.at - start:.1f} s")
        nursery.cancel_scope.cancel()
    for side in (server, client):
        assert IDLE - QUIET - 1 < side.at - start < IDLE + 0.5
