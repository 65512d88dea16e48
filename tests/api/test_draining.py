"""A server that drains its session by WebTransport's own capsule, DRAIN_WEBTRANSPORT_SESSION."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.transport.recorders import eventually


async def test_a_redirect_stays():
    """A drain that arrives after a GOAWAY does not take the place of the URI that the GOAWAY names."""
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
                await accepted[0].goaway("https://elsewhere.example/a")
                assert await session.wait_goaway() == "https://elsewhere.example/a"
                connection = session._context.connection
                accepted[0]._context.connection.drain()
                await eventually(lambda: connection.draining)
                assert await session.wait_goaway() == "https://elsewhere.example/a"
                assert session.closed is None
        await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()


async def test_a_drain_reads_as_a_goaway_that_names_no_place():
    """`wait_goaway` returns, new requests are refused, and the URI of a GOAWAY that follows is used."""
    accepted: list[moqt.Session] = []

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            accepted.append(session)
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/a": handler}), "127.0.0.1", 0)
        url = f"https://127.0.0.1:{listener.port}/a"
        with trio.fail_after(10):
            async with (
                moqt.connect(url, fingerprint=listener.fingerprint) as session,
                session.announcements("") as announcements,
            ):
                await announcements.wait_initial()
                accepted[0]._context.connection.drain()
                assert await session.wait_goaway() == ""
                with pytest.raises(moqt.GoingAway):
                    async with session.announcements("a"):
                        pass
                assert session.closed is None
                await accepted[0].goaway("https://elsewhere.example/a")
                while await session.wait_goaway() == "":
                    await trio.lowlevel.checkpoint()
                assert await session.wait_goaway() == "https://elsewhere.example/a"
                assert session.closed is None
        await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()
