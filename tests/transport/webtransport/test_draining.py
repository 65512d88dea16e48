"""A server that asks its clients to leave: the capsule of a session, and HTTP/3's GOAWAY for all of a connection."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from moqt_trio.errors import HandshakeFailed
from moqt_trio.limits import Limits
from moqt_trio.transport.connection import ConnectionHandler
from moqt_trio.transport.webtransport.client import open_webtransport
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import Accepting, connected, serving, session_to


class Drained(ConnectionHandler):
    """Counts how often it was drained, and notes what came after the end."""

    def __init__(self):
        self.events = []

    def draining(self):
        self.events.append("draining")

    def connection_lost(self, error):
        self.events.append("lost")


async def test_a_drain_is_delivered_once():
    """Both ways to drain, a session's capsule and the connection's GOAWAY, make one call; it changes nothing else."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        client.handler = handler = Drained()
        await client.open_bidi()
        assert not client.draining
        server.drain()
        await eventually(lambda: client.draining)
        served.connections[0].handler.http3.send_goaway(4)
        await eventually(lambda: client._demux.http3.goaway_received)
        server.drain()
        stream = await server.open_uni()
        stream.write(b"still open", fin=True)
        await eventually(lambda: stream.stream_id in client.streams)
        assert handler.events == ["draining"]
        assert client.closed is None
        server.close()
        await client.wait_closed()
        assert handler.events == ["draining", "lost"]


@pytest.mark.parametrize("capsule", [True, False], ids=["capsule", "GOAWAY"])
async def test_a_drain_waits_for_a_handler(capsule):
    """A drain that arrives before there is a handler is delivered to the one that is attached."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        if capsule:
            server.drain()
        else:
            served.connections[0].handler.http3.send_goaway(4)
        await eventually(lambda: client.draining)
        client.handler = handler = Drained()
        assert handler.events == ["draining"]


async def test_goaway_drains_every_session():
    """GOAWAY drains the sessions of the connection, also one that is accepted later; no further one is requested."""
    accepting, may_accept = Accepting(), trio.Event()

    async def handler(request):
        if request.path == "/later":
            await may_accept.wait()
        await accepting(request)

    async with serving(handler) as served, connected(served.port) as connection:
        opening = partial(open_webtransport, connection, "localhost", limits=Limits())
        async with opening("/a", ()) as first, opening("/b", ()) as second, trio.open_nursery() as nursery:

            async def open_later():
                async with opening("/later", ()) as session:
                    assert session.draining
                    session.handler = handler = Drained()
                    assert handler.events == ["draining"]

            nursery.start_soon(open_later)
            demux = served.connections[0].handler
            await eventually(lambda: len(demux.sessions) == 3)
            assert not first.draining
            demux.http3.send_goaway(12)
            await eventually(lambda: first.draining)
            assert second.draining
            may_accept.set()
            with pytest.raises(HandshakeFailed, match="no more sessions"):
                async with opening("/d", ()):
                    pass


async def test_goaway_waits_for_sessions():
    """GOAWAY is sent once each session was drained, or has ended and the client knows; a browser's has to end."""
    accepting = Accepting()
    async with serving(accepting) as served, connected(served.port) as connection:
        opening = partial(open_webtransport, connection, "localhost", limits=Limits())
        async with opening("/a", ()) as drained, opening("/b", ()) as closed:
            async with opening("/c", (), origin="https://page.example") as page:
                sessions = {server.path: server for server in [await accepting.session() for _ in range(3)]}
                demux = served.connections[0].handler
                for step in (demux.go_away, sessions["/a"].drain, sessions["/b"].close, sessions["/c"].drain):
                    step()
                    assert not demux._goaway_sent
                await eventually(lambda: page.draining and drained.draining and closed.closed)
                assert not closed.draining
                await eventually(lambda: closed.session_id not in demux._unsettled)
                assert not demux._goaway_sent
            await eventually(lambda: demux._goaway_sent)
            await eventually(lambda: drained._demux.http3.goaway_received)
