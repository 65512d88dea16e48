"""Requests that share one control stream (drafts 14 to 16) all end with their session, however that ends."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import DraftWire
from tests.faults.raw_peer import settled
from tests.transport.awaiting import accept_bidi

EACH_DRAFT = pytest.mark.parametrize("version", ["moqt-14", "moqt-15", "moqt-16"])
INVALID_PATH = 0x8


@pytest.mark.parametrize("version", ["moqt-15", "moqt-16"])
async def test_a_session_that_ends_before_its_control_stream(version):
    """A server's requests wait for the client's SETUP; when the session ends instead, they end with it."""
    dialect = dialects.get(version)
    with trio.fail_after(10):
        async with open_memory_pair(protocol=dialect.alpns[0]) as (peer, own):
            async with run_session(own, [dialect], limits=moqt.Limits()) as session:
                ended: list[str] = []

                async def subscribe() -> None:
                    with pytest.raises(moqt.SessionClosed):
                        async with session.subscribe("b", "t"):
                            pytest.fail("there is no control stream")
                    ended.append("subscribe")

                async def list_announcements() -> None:
                    with pytest.raises(moqt.SessionClosed):
                        async with session.announcements("b"):
                            pytest.fail("there is no control stream")
                    ended.append("announcements")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(subscribe)
                    nursery.start_soon(list_announcements)
                    await settled()
                    peer.close(0)
            assert sorted(ended) == ["announcements", "subscribe"]


@EACH_DRAFT
async def test_a_control_stream_that_is_reset_and_stopped(version):
    """The session ends with it, and so do the requests on it, in both directions."""
    async with draft_peer(version) as peer:
        subscription, _ = await peer.subscription()
        served = await peer.subscribe()
        await served.accepted()
        [server] = peer.session._publisher.subscriptions
        assert peer.control is not None
        peer.control.reset(0)
        peer.control.stop(0)
        with trio.fail_after(10), pytest.raises(moqt.SessionClosed):
            await anext(subscription)
        assert server.scope.cancel_called
        requests = peer.session._shared_requests
        assert requests is not None
        assert requests._streams == {}
        with trio.fail_after(10), pytest.raises(moqt.SessionClosed):
            async with peer.session.subscribe("b", "other"):
                pytest.fail("the session has ended")


@EACH_DRAFT
async def test_a_server_that_names_a_path(version):
    """Its SETUP ends the session with INVALID_PATH; on draft 14 it is a part of the handshake."""
    wire = DraftWire(version)
    options = b"\x02\x01" + wire.data(b"/path") + wire.number(1 if version == "moqt-16" else 2) + wire.number(100)
    dialect = dialects.get(version)
    with trio.fail_after(10):
        async with open_memory_pair(protocol=dialect.alpns[0]) as (own, peer), trio.open_nursery() as nursery:

            async def greet() -> None:
                (await accept_bidi(peer)).write(wire.setup(client=False, options=options))

            nursery.start_soon(greet)
            # On 14 it is known before the session begins.
            with suppress(moqt.SessionClosed):
                async with run_session(own, [dialect], limits=moqt.Limits(), path="/") as session:
                    await session.wait_closed()
            error = await own.wait_closed()
            assert isinstance(error, moqt.SessionClosed)
            assert error.local_code == INVALID_PATH
