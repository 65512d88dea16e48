"""What is too large over WebTransport and HTTP/3: headers, capsules, reasons and datagrams, at the limits as they stand
and one past them."""

from __future__ import annotations

import pytest
import trio
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import FrameType

from moqt_trio.errors import SessionClosed
from moqt_trio.limits import KIB, MIB, Limits
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import accept_bidi, receive_datagram
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import read_all, serving

MESSAGE_ERROR = 0x10E
LIMITS = Limits()


class Echo:
    """A handler that echoes datagrams and streams, and keeps how its sessions ended."""

    def __init__(self):
        self.ends = []
        self.sessions = []

    async def __call__(self, request):
        session = request.accept()
        self.sessions.append(session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._datagrams, session)
            nursery.start_soon(self._streams, session)
            self.ends.append(await session.wait_closed())
            nursery.cancel_scope.cancel()

    async def _datagrams(self, session):
        while True:
            session.send_datagram(await receive_datagram(session))

    async def _streams(self, session):
        while True:
            stream = await accept_bidi(session)
            stream.write(await read_all(stream), True)


@pytest.fixture
def echo():
    return Echo()


async def check_echo(peer, session):
    """The session still works, by stream and by datagram."""
    stream = peer.open_stream(session, b"alive", end=True)
    await peer.wait(lambda: stream in peer.raw_ended)
    assert bytes(peer.raw[stream]) == b"alive"
    before = len(peer.datagrams)
    peer.h3.send_datagram(session, b"alive")
    peer.flush()
    await peer.wait(lambda: len(peer.datagrams) > before)


def fields_of(size):
    """One field that makes a request's section as large as this: RFC 9114 counts 32 bytes for each line."""
    others = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/"))
    used = sum(len(name) + len(value) + 32 for name, value in others)
    return ((b"x", b"a" * (size - used - 33)),)


async def test_headers():
    """A section of 64 KiB is taken, one byte more is 431; the same for a session, and the connection goes on."""

    async def handler(request):
        await request.accept().wait_closed()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        assert peer.h3.received_settings[0x6] == 64 * KIB == LIMITS.max_header_bytes
        assert await peer.status(peer.request("/", headers=fields_of(64 * KIB))) == 404
        assert await peer.status(peer.request("/", headers=fields_of(64 * KIB + 1))) == 431
        assert await peer.status(peer.connect("/", headers=fields_of(64 * KIB))) == 431
        assert await peer.status(peer.connect("/")) == 200


async def test_headers_that_never_end():
    """A HEADERS frame that says to be a gigabyte is refused at the limit, on each of ten streams, and none is kept."""
    async with serving() as served, connect_http3(served.port) as peer:
        assert await peer.status(peer.request("/")) == 404
        streams = [peer.quic.get_next_available_stream_id() + 4 * number for number in range(10)]
        for stream in streams:
            peer.write(stream, encode_uint_var(FrameType.HEADERS) + encode_uint_var(2**30) + bytes(60 * KIB))
        for stream in streams:
            peer.write(stream, bytes(8 * KIB))
        for stream in streams:
            assert await peer.status(stream) == 431
        (connection,) = served.connections
        held = sum(len(state.buffer) for state in connection.handler.http3._h3._stream.values())
        assert held <= LIMITS.max_header_bytes


@pytest.mark.parametrize(("length", "fits"), [(1024, True), (1025, False), (1 << 20, False)])
async def test_the_reason_of_a_close(echo, length, fits):
    """A reason of 1024 bytes is read; one of a byte more resets the CONNECT stream before it is kept."""
    async with serving(echo) as served, connect_http3(served.port) as peer:
        session, neighbour = peer.connect("/"), peer.connect("/")
        for each in (session, neighbour):
            assert await peer.status(each) == 200
        body = (7).to_bytes(4, "big") + b"r" * length
        capsule = encode_uint_var(0x2843) + encode_uint_var(len(body)) + body
        peer.h3.send_data(session, capsule, end_stream=fits)
        peer.flush()
        await eventually(lambda: echo.ends)
        (error,) = echo.ends
        assert isinstance(error, SessionClosed)
        if fits:
            assert error.remote_code == 7
            assert error.reason.startswith("r" * 200)
        else:
            assert await peer.wait(lambda: peer.reset_code(session)) == MESSAGE_ERROR
            assert (error.local_code, error.by_peer) == (MESSAGE_ERROR, False)
        await check_echo(peer, neighbour)


async def test_our_own_reason():
    """A reason that is too long is cut to 1024 bytes on its way out, between characters."""

    async def handler(request):
        request.accept().close(7, "é" * 5000)

    async with serving(handler) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.wait(lambda: peer.ended(session))
        ((kind, value),) = peer.capsules(session)
        assert (kind, value) == (0x2843, (7).to_bytes(4, "big") + "é".encode() * 512)


async def test_capsules_without_end(echo):
    """Ten megabytes of unknown capsules, and one that says to be of 2**62-1 bytes, are drained through the window
    without being kept; the session's streams and datagrams go on meanwhile."""
    async with serving(echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        grease = encode_uint_var(0x29 * 77 + 0x17) + encode_uint_var(MIB) + bytes(MIB)
        for _ in range(10):
            peer.h3.send_data(session, grease, end_stream=False)
            peer.flush()
            await check_echo(peer, session)
        peer.h3.send_data(session, encode_uint_var(0x29 * 78) + encode_uint_var(2**62 - 1), end_stream=False)
        for _ in range(4):
            peer.h3.send_data(session, bytes(256 * KIB), end_stream=False)
            peer.flush()
            await check_echo(peer, session)
        assert len(echo.sessions[0]._capsules._buffer) == 0
        assert echo.ends == []


async def test_many_tiny_capsules(echo):
    """Fifty thousand empty capsules of unknown types, and as many DRAINs, cost little and change nothing."""
    async with serving(echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        for capsule in (bytes.fromhex("17 00"), bytes.fromhex("800078ae 00")):
            peer.h3.send_data(session, capsule * 50_000, end_stream=False)
        await check_echo(peer, session)
        await eventually(lambda: echo.sessions[0].draining)
        assert echo.ends == []


async def test_datagrams_of_every_size(echo):
    """Datagrams up to the largest that fits a packet come back; a larger one is refused where it is sent."""
    async with serving(echo) as served, connect_http3(served.port, max_datagram_size=1452) as peer:
        session = peer.connect("/")
        await peer.status(session)
        for size in (0, 1, 1000, 1150, 1200):
            before = len(peer.datagrams)
            peer.h3.send_datagram(session, bytes(size))
            peer.flush()
            await peer.wait(lambda before=before: len(peer.datagrams) > before)
            assert peer.datagrams[-1] == (session, bytes(size))
        (ours,) = echo.sessions
        largest = ours.max_datagram_size
        assert largest >= 1150
        with pytest.raises(ValueError, match=f"{largest} bytes"):
            ours.send_datagram(bytes(largest + 1))
        await check_echo(peer, session)


async def test_datagrams_of_unknown_sessions(echo):
    """A thousand datagrams for sessions that do not exist are held within `max_early_bytes` and `max_datagrams`, for a
    session that may come; those of one that is over are dropped, and so are those whose id is cut off."""
    async with serving(echo) as served, connect_http3(served.port) as peer:
        session, ended = peer.connect("/"), peer.connect("/")
        for each in (session, ended):
            await peer.status(each)
        peer.h3.send_data(ended, b"", end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(ended))
        (connection,) = served.connections
        early = connection.handler.early
        for number in range(1000):
            peer.quic.send_datagram_frame(encode_uint_var(ended // 4) + bytes(1000))
            peer.quic.send_datagram_frame(b"\xc0")
            if number % 50 == 0:
                peer.flush()
                await check_echo(peer, session)
        assert not early
        for number in range(1000):
            peer.quic.send_datagram_frame(encode_uint_var(1000 + number % 7) + bytes(1000))
            if number % 50 == 0:
                peer.flush()
                await check_echo(peer, session)
        assert 0 < early._bytes <= LIMITS.max_early_bytes
        assert len(early._datagrams) <= LIMITS.max_datagrams
        await check_echo(peer, session)
        assert len(echo.ends) == 1
