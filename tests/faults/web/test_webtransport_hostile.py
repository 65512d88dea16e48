"""Clients that break or strain WebTransport: one session ends, the others and the connection go on."""

from __future__ import annotations

import attrs
import pytest
import trio
from aioquic.buffer import encode_uint_var

from moqt_trio.errors import SessionClosed
from moqt_trio.limits import KIB, Limits
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import accept_bidi, send_all
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import read_all, serving

MESSAGE_ERROR = 0x10E


class Sessions:
    """A handler that accepts everything, echoes streams, and keeps how each session ended."""

    def __init__(self):
        self.ends = []

    async def __call__(self, request):
        session = request.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._echo, session, nursery)
            self.ends.append(await session.wait_closed())
            nursery.cancel_scope.cancel()

    async def _echo(self, session, nursery):
        while True:
            nursery.start_soon(self._reply, await accept_bidi(session))

    async def _reply(self, stream):
        try:
            await send_all(stream, await read_all(stream))
            stream.finish()
        except SessionClosed:
            pass


@pytest.fixture
def sessions():
    return Sessions()


async def check_echo(peer, session):
    stream = peer.open_stream(session, b"alive", end=True)
    await peer.wait(lambda: stream in peer.raw_ended)
    assert bytes(peer.raw[stream]) == b"alive"


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("6843 03 000000"),
        bytes.fromhex("6843 bfffffff"),
        bytes.fromhex("6843 05 00000000 ff"),
        bytes.fromhex("800078ae 01 00"),
    ],
    ids=["short", "huge", "not UTF-8", "drain with a body"],
)
async def test_malformed_capsules(sessions, data):
    """A malformed capsule resets its CONNECT stream with H3_MESSAGE_ERROR; the other session goes on."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        bad, good = peer.connect("/"), peer.connect("/")
        await peer.status(bad)
        await peer.status(good)
        peer.h3.send_data(bad, data, end_stream=False)
        peer.flush()
        assert await peer.wait(lambda: peer.reset_code(bad)) == MESSAGE_ERROR
        await check_echo(peer, good)
        assert len(sessions.ends) == 1
        assert not sessions.ends[0].by_peer


async def test_a_capsule_cut_by_the_end(sessions):
    """A CONNECT stream that ends within a capsule is malformed."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_data(session, bytes.fromhex("6843 08 0000"), end_stream=True)
        peer.flush()
        assert await peer.wait(lambda: peer.reset_code(session)) == MESSAGE_ERROR


async def test_a_megabyte_of_grease(sessions):
    """A megabyte of unknown capsules passes through a small window without being kept; the session goes on."""
    limits = attrs.evolve(Limits(), stream_window=32 * KIB, connection_window=64 * KIB)
    async with serving(sessions, limits=limits) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        grease = encode_uint_var(0x29 * 1000) + encode_uint_var(2**20)
        peer.h3.send_data(session, grease + bytes(2**20), end_stream=False)
        peer.h3.send_data(session, bytes.fromhex("6843 06 00000007 6f6b"), end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(session))
        (error,) = sessions.ends
        assert (error.remote_code, error.reason) == (7, "ok")


async def test_data_after_the_close(sessions):
    """Data after the close capsule resets the CONNECT stream; the session had ended with its code."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_data(session, bytes.fromhex("6843 04 00000007"), end_stream=False)
        peer.h3.send_data(session, b"more", end_stream=False)
        peer.flush()
        assert await peer.wait(lambda: peer.stop_code(session)) == MESSAGE_ERROR
        assert sessions.ends[0].remote_code == 7


async def test_goaway_of_a_client():
    """GOAWAY on a client's control stream drains each session of the connection, also one that is accepted later."""
    opened = {}

    async def handler(request):
        session = opened[request.path] = request.accept()
        await session.wait_closed()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        first = peer.connect("/first")
        await peer.status(first)
        assert not opened["/first"].draining
        peer.write(peer.h3._local_control_stream_id, bytes.fromhex("07 01 00"))
        await eventually(lambda: opened["/first"].draining)
        await peer.status(peer.connect("/second"))
        assert opened["/second"].draining
        assert opened["/first"].closed is None


async def test_drain_is_noted():
    """A drain capsule is noted and changes nothing else."""
    seen = []

    async def handler(request):
        session = request.accept()
        stream = await accept_bidi(session)
        await read_all(stream)
        seen.append((session.draining, session.closed))

    async with serving(handler) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_data(session, bytes.fromhex("800078ae 00"), end_stream=False)
        peer.open_stream(session, b"", end=True)
        await peer.wait(lambda: peer.ended(session))
    assert seen == [(True, None)]


async def test_trailers_on_the_connect_stream(sessions):
    """Trailers end the CONNECT stream like any end."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_headers(session, [(b"x", b"y")], end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(session))
        assert (sessions.ends[0].remote_code, sessions.ends[0].by_peer) == (0, True)


async def test_a_connect_that_is_over_at_once(sessions):
    """A CONNECT that ends with its headers is no session."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        stream = peer.request("/", method="CONNECT", headers=((b":protocol", b"webtransport"),), end=True)
        assert await peer.status(stream) == 400
        assert sessions.ends == []


async def test_a_session_that_is_not_read():
    """Streams that a session does not read stop at their window; other streams, sessions and requests run on."""
    limits = attrs.evolve(Limits(), stream_window=64 * KIB)
    held = []

    async def handler(request):
        session = request.accept()
        if request.path == "/stalled":
            for _ in range(4):
                held.append(await accept_bidi(session))
            await session.wait_closed()
        else:
            while True:
                stream = await accept_bidi(session)
                await send_all(stream, await read_all(stream))
                stream.finish()

    async with (
        serving(handler, limits=limits) as served,
        connect_http3(served.port) as peer,
        connect_http3(served.port) as other,
    ):
        stalled, alive = peer.connect("/stalled"), peer.connect("/echo")
        elsewhere = other.connect("/echo")
        for client, session in ((peer, stalled), (peer, alive), (other, elsewhere)):
            assert await client.status(session) == 200
        body = bytes(512 * KIB)
        stuck = [peer.open_stream(stalled, body) for _ in range(4)]
        for _ in range(10):
            await check_echo(peer, alive)
            await check_echo(other, elsewhere)
            assert await peer.status(peer.request("/")) == 404
        taken = [peer.quic._streams[stream].sender._buffer_start for stream in stuck]
        print(f"window {limits.stream_window}, taken from the client {taken} of {len(body)}")
        assert all(count <= limits.stream_window for count in taken)
        assert len(held) == 4


async def test_sessions_come_and_go(sessions):
    """A hundred sessions, one after another on one connection, leave no state."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        for _ in range(100):
            session = peer.connect("/")
            assert await peer.status(session) == 200
            await check_echo(peer, session)
            peer.h3.send_data(session, bytes.fromhex("6843 04 00000000"), end_stream=True)
            peer.flush()
            await peer.wait(lambda session=session: peer.ended(session))
        assert len(sessions.ends) == 100
        (connection,) = served.connections
        demux = connection.handler
        assert demux.sessions == {}
        assert demux.unclassified == {}
        assert not demux.early
        assert set(demux.http3._h3._stream) <= {2, 6, 10, 3, 7, 11}
        assert set(demux.http3._quic.streams) <= {2, 6, 10, 3, 7, 11}
        assert len(connection.streams) <= 6 + 2


async def test_trailers_beyond_the_limit(sessions):
    """Trailers that are too large end their session with H3_EXCESSIVE_LOAD."""
    limits = attrs.evolve(Limits(), max_header_bytes=8 * KIB)
    async with serving(sessions, limits=limits) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_headers(session, [(b"x", b"y" * 9000)], end_stream=True)
        peer.flush()
        assert await peer.wait(lambda: peer.reset_code(session)) == 0x107


async def test_datagrams_after_the_end(sessions):
    """Datagrams of a session that has ended are dropped, not kept for one to come."""
    async with serving(sessions) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_data(session, b"", end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(session))
        peer.h3.send_datagram(session, b"late")
        assert await peer.status(peer.request("/")) == 404
        (connection,) = served.connections
        assert not connection.handler.early
