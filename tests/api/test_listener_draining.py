"""A listener that shuts down drains every session, and gives each of them the whole grace."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt

TIMEOUT = 10
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


@SCHEMES
async def test_a_session_that_was_asked_before(scheme):
    """A session whose handler has sent a GOAWAY with a URI itself has the whole grace when the listener shuts down."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)

    async def serve(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await track.wait_subscribed()
            await session.goaway(f"{scheme}://localhost/elsewhere")
            await session.wait_closed()

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(moqt.serve, serve, "localhost", 0)
            url = f"{scheme}://localhost:{listener.port}/"
            async with moqt.connect(url, fingerprint=listener.fingerprint, versions=["moq-lite-04"]) as session:
                async with session.announcements() as announcements:
                    await announcements.receive()
                async with session.subscribe("b", "t", max_age=60) as subscription:
                    assert await session.wait_goaway() == f"{scheme}://localhost/elsewhere"
                    nursery.start_soon(listener.aclose, TIMEOUT)
                    for number in range(20):
                        await track.write(b"%d" % number)
                        assert await (await subscription.receive()).read_all() == [b"%d" % number]


async def test_a_session_that_is_accepted_late():
    """A session whose handler accepts it only after the shutdown began is drained, too."""
    asked, leaving = trio.Event(), trio.Event()

    async def serve(request: moqt.SessionRequest) -> None:
        asked.set()
        await leaving.wait()
        async with request.accept() as session:
            await session.wait_closed()

    async def leave(listener: moqt.Listener) -> None:
        await asked.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.aclose, 2 * TIMEOUT)
            await trio.lowlevel.checkpoint()
            leaving.set()

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(moqt.serve, serve, "localhost", 0)
            nursery.start_soon(leave, listener)
            url = f"https://localhost:{listener.port}/"
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                assert await session.wait_goaway() == ""
