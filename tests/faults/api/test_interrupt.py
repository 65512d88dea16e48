"""Ctrl-C within the library's own code: the peer is told at once, and KeyboardInterrupt is all that comes out."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

import moqt_trio as moqt
from tests.interop.processes import PEERS, Child

PEER = str(PEERS / "interrupted.py")
STEPS = 60
SERVER_STEPS = 25


class Publisher:
    """Publishes groups on each session until it ends.

    Attributes:
        ends: How each session ended.
    """

    def __init__(self) -> None:
        self.ends: list[moqt.MoqtError | None] = []
        self._ended = trio.Event()

    async def handle(self, request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        track = broadcast.track("t")
        async with request.accept() as session:
            with suppress(moqt.SessionClosed):
                async with session.publish("a", broadcast):
                    while session.closed is None:
                        await track.write(bytes(3000))
                        await trio.sleep(0.002)
        self.ends.append(session.closed)
        self._ended.set()
        self._ended = trio.Event()

    async def wait_ended(self, count: int) -> None:
        """Waits until as many sessions have ended."""
        while len(self.ends) < count:
            await self._ended.wait()


async def wait_event(child: Child, event: str) -> dict[str, Any]:
    return await trio.to_thread.run_sync(partial(child.wait_event, event, 60.0), abandon_on_cancel=True)


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_application_is_not_protected(scheme):
    """What the application runs can be interrupted anywhere, so also in an endless loop: handlers of `serve` and of
    `stay_connected`, and the blocks of sessions, requests and groups."""
    protected: dict[str, bool] = {}

    def note(where: str) -> None:
        protected[where] = trio.lowlevel.currently_ki_protected()

    async def serve_session(request: moqt.SessionRequest) -> None:
        note("handler")
        broadcast = moqt.Broadcast()
        track = broadcast.track("t")
        async with request.accept() as session:
            note("accept")
            async with session.publish("a", broadcast):
                note("publish")
                await track.wait_subscribed()
                async with track.open_group() as group:
                    note("open_group")
                    await group.send(b"frame")
                await session.wait_closed()

    async def use_session(session: moqt.Session) -> bool:
        note("stay_connected")
        async with session.announcements() as announcements:
            await announcements.receive()
        async with session.subscribe("a", "t") as subscription:
            note("subscribe")
            async for group in subscription:
                async for _ in group:
                    note("frames")
                break
        return True

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/x": serve_session}, default="/x")
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0))
        url = f"{scheme}://localhost:{listener.port}/x"
        async with moqt.connect(url, fingerprint=listener.fingerprint):
            note("connect")
        assert await moqt.stay_connected(url, use_session, fingerprint=listener.fingerprint)
        nursery.cancel_scope.cancel()
    assert len(protected) == 8
    assert not any(protected.values()), protected


@pytest.mark.parametrize("scheme", ["moqt", "https"])
@pytest.mark.parametrize("how", ["connect", "stay_connected"])
async def test_client(how, scheme):
    """At whatever call of the library Ctrl-C comes, in the application's task or in one of the library's: the client
    gets KeyboardInterrupt, bare and alone, nothing is logged, and the server learns from it that it left."""
    publisher = Publisher()
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/x": publisher.handle}, default="/x")
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0))
        url = f"{scheme}://localhost:{listener.port}/x"
        with Child(PEER, how, url, listener.fingerprint, str(STEPS)) as client:
            ended = [await wait_event(client, "ended") for _ in range(1 + STEPS)]
            assert await trio.to_thread.run_sync(client.wait_ended) == 0
            assert client.errors == []
        assert ended[0]["how"] == "clean"
        # A session may need fewer calls than the first one: then the last places are not reached.
        interrupted = [end for end in ended[1:] if end["where"]]
        assert len(interrupted) > STEPS // 2
        assert [end for end in interrupted if end["how"] != "KeyboardInterrupt()"] == []
        with trio.move_on_after(10):
            await publisher.wait_ended(1 + STEPS)
        told = [end for end in publisher.ends if isinstance(end, moqt.SessionClosed) and end.by_peer]
        assert len(told) == 1 + STEPS, publisher.ends
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_server(scheme):
    """At whatever call of the library Ctrl-C ends a server that publishes at full speed: its client learns that from
    the server, and nothing is logged."""
    with Child(PEER, "server", str(SERVER_STEPS)) as server:
        for _ in range(SERVER_STEPS):
            listening = await wait_event(server, "listening")
            url = f"{scheme}://localhost:{listening['port']}/x"
            async with moqt.connect(url, fingerprint=listening["fingerprint"]) as session:
                with suppress(moqt.SessionClosed, moqt.StreamReset):
                    async with session.announcements() as announcements:
                        await announcements.receive()
                    async with session.subscribe("a", "t") as subscription:
                        async for group in subscription:
                            await group.read_all()
                end = await session.wait_closed()
            ended = await wait_event(server, "ended")
            assert ended["how"] == "KeyboardInterrupt()", ended
            assert isinstance(end, moqt.SessionClosed)
            assert end.by_peer, (ended, end)
        assert await trio.to_thread.run_sync(server.wait_ended) == 0
        assert server.errors == []
