"""`Session.wait_announced`, and who is connected to a listener."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.test_blame import listening
from tests.http.serving import CERTIFICATE

VERSIONS = pytest.mark.parametrize("version", moqt.version_names(opt_in=True))


def with_a_track():
    """A broadcast with a track: some versions announce tracks, and so no broadcast without one."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    return broadcast


@VERSIONS
async def test_announced_before(version, autojump_clock):
    """A broadcast that is announced already is returned, and no other below its path or beside it."""
    async with (
        session_pair(version) as (client, server),
        server.publish("room/ada/screen", with_a_track()),
        server.publish("room/adam", with_a_track()),
        server.publish("room/ada", with_a_track()),
    ):
        with trio.fail_after(5):
            found = await client.wait_announced("/room//ada/")
    assert found.active
    assert found.path == "room/ada"


@VERSIONS
async def test_announced_later(version, autojump_clock):
    """It waits for one that is announced later; cancelling the wait ends the request."""
    async with session_pair(version) as (client, server):
        with trio.move_on_after(1) as waiting:
            await client.wait_announced("room/ada")
        assert waiting.cancelled_caught
        async with trio.open_nursery() as nursery:
            found = []

            async def wait():
                found.append(await client.wait_announced(moqt.BroadcastPath(("room", "ada"))))
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            async with server.publish("room/ada/screen", with_a_track()):
                await trio.sleep(1)
                assert not found
                async with server.publish("room/ada", with_a_track()):
                    await trio.sleep(1)
    assert [item.path for item in found] == ["room/ada"]


async def test_the_end():
    """The end of the session, a GOAWAY and a path without a part end the wait."""
    async with session_pair() as (client, server):
        with pytest.raises(ValueError, match="at least one part"):
            await client.wait_announced("")
        with pytest.raises(TypeError, match="a path is a text"):
            await client.wait_announced(None)
        async with trio.open_nursery() as nursery:

            async def wait():
                with pytest.raises(moqt.SessionClosed):
                    await client.wait_announced("room/ada")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            server.close()
    async with session_pair() as (client, server):
        await server.goaway()
        await client.wait_goaway()
        with pytest.raises(moqt.GoingAway):
            await client.wait_announced("room/ada")


async def test_the_sessions_of_a_listener():
    """A listener lists the sessions that run, the oldest first, with the peer's address."""

    async def accept(request):
        async with request.accept() as session:
            await session.wait_closed()

    async with listening(accept) as listener:
        assert listener.sessions == ()
        with trio.fail_after(10):
            async with moqt.connect(listener.urls[0], fingerprint=CERTIFICATE.fingerprint):
                while len(listener.sessions) < 1:  # noqa: ASYNC110 - the listener has no such event
                    await trio.sleep(0.01)
                async with moqt.connect(listener.urls[1], fingerprint=CERTIFICATE.fingerprint):
                    while len(listener.sessions) < 2:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    first, second = listener.sessions
                    assert (first.transport, second.transport) == ("webtransport", "quic")
                    assert first.peer[0] in ("127.0.0.1", "::1")
                    assert isinstance(await trio.to_thread.run_sync(lambda: listener.sessions), tuple)
                while len(listener.sessions) > 1:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                assert listener.sessions == (first,)
