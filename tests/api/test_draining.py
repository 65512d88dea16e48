"""A server that drains its session by WebTransport's own capsule, DRAIN_WEBTRANSPORT_SESSION."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from tests.transport.recorders import eventually

LIMITS = moqt.Limits(drain_timeout=0.5)


@asynccontextmanager
async def session_to_drain() -> AsyncIterator[tuple[moqt.Session, moqt.Session]]:
    """Yield both ends of a session over WebTransport, the client's first."""
    accepted: list[moqt.Session] = []

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            accepted.append(session)
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/a": handler}), "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.port}/a"
        with trio.fail_after(10):
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                await eventually(lambda: accepted)
                yield session, accepted[0]
        await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()


async def test_a_redirect_stays():
    """A drain that arrives after a GOAWAY does not take the place of the URI that the GOAWAY names."""
    async with session_to_drain() as (session, server):
        await server.goaway("https://elsewhere.example/a")
        assert await session.wait_goaway() == "https://elsewhere.example/a"
        connection = session._context.connection
        server._context.connection.drain()
        await eventually(lambda: connection.draining)
        assert await session.wait_goaway() == "https://elsewhere.example/a"
        assert session.closed is None


async def test_a_drain_reads_as_a_goaway_that_names_no_place():
    """`wait_goaway` returns, new requests are refused, and the URI of a GOAWAY that follows is used."""
    async with session_to_drain() as (session, server), session.announcements("") as announcements:
        await announcements.wait_initial()
        server._context.connection.drain()
        assert await session.wait_goaway() == ""
        with pytest.raises(moqt.GoingAway):
            async with session.announcements("a"):
                pass
        assert session.closed is None
        await server.goaway("https://elsewhere.example/a")
        while await session.wait_goaway() == "":
            await trio.lowlevel.checkpoint()
        assert await session.wait_goaway() == "https://elsewhere.example/a"
        assert session.closed is None


async def test_a_redirect_that_follows_a_drain():
    """Until the next session is open, a client follows the URI of a GOAWAY that comes after a drain; both are one."""
    asked: list[str] = []

    async def leaving(request: moqt.SessionRequest) -> None:
        asked.append(request.path)
        if len(asked) > 1:
            # The server has no more sessions here, and says where they are.
            await trio.sleep_forever()
        async with request.accept() as session:
            session._context.connection.drain()
            await trio.sleep(0.1)
            await session.goaway(f"https://127.0.0.1:{listener.port}/b")
            await session.wait_closed()

    async def staying(request: moqt.SessionRequest) -> None:
        asked.append(request.path)
        async with request.accept() as session:
            await session.wait_closed()

    async def client(session: moqt.Session) -> str:
        if len(asked) == 1:
            await session.wait_closed()
        return "arrived"

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/a": leaving, "/b": staying})
        listener = await nursery.start(moqt.serve, router, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.port}/a"
        with trio.fail_after(5):
            came = await moqt.stay_connected(
                url, client, fingerprint=listener.fingerprint, max_redirects=1, limits=LIMITS
            )
        assert came == "arrived"
        assert asked == ["/a", "/a", "/b"]
        await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()


async def test_a_redirect_after_the_next_session_is_open():
    """It comes too late: the client stays where it is, and is asked again by the session that it has now."""
    asked: list[str] = []
    reconnected, sent = trio.Event(), trio.Event()

    async def leaving(request: moqt.SessionRequest) -> None:
        asked.append(request.path)
        async with request.accept() as session:
            if len(asked) == 1:
                session._context.connection.drain()
                await reconnected.wait()
                await session.goaway(f"https://127.0.0.1:{listener.port}/b")
                sent.set()
            await session.wait_closed()

    async def client(session: moqt.Session) -> str:
        if not reconnected.is_set() and len(asked) == 1:
            await session.wait_closed()
        reconnected.set()
        await sent.wait()
        await trio.sleep(0.1)
        assert session.closed is None
        return "stayed"

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/a": leaving})
        listener = await nursery.start(moqt.serve, router, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.port}/a"
        with trio.fail_after(5):
            came = await moqt.stay_connected(url, client, fingerprint=listener.fingerprint, limits=LIMITS)
        assert came == "stayed"
        assert asked == ["/a", "/a"]
        await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()
