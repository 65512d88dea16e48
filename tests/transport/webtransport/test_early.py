"""Streams and datagrams that come before their session: kept within bounds, or refused."""

from __future__ import annotations

import attrs
import pytest
import trio

from moqt_trio.errors import StreamReset
from moqt_trio.limits import Limits
from moqt_trio.transport.http3.early import EarlyArrivals
from moqt_trio.transport.receive_stream import ReceiveStream
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram, send_all
from tests.transport.webtransport.serving import read_all, serving

BUFFERED_STREAM_REJECTED = 0x3994BD84


class Gate:
    """A handler that accepts once the test lets it, and keeps the session."""

    def __init__(self):
        self.asked = trio.Event()
        self.open = trio.Event()
        self.accepted = trio.Event()

    async def __call__(self, request):
        self.request = request
        self.asked.set()
        await self.open.wait()
        self.session = request.accept()
        self.accepted.set()
        await self.session.wait_closed()


async def test_streams_before_the_connect():
    """Streams and datagrams that arrive before the CONNECT reach the session once it is accepted, in order."""
    gate = Gate()
    gate.open.set()
    async with serving(gate) as served, connect_http3(served.port) as peer:
        bidi = peer.open_stream(4, b"early ")
        peer.open_stream(4, b"uni", end=True, uni=True)
        peer.h3.send_datagram(4, b"datagram")
        peer.flush()
        assert peer.connect("/") == 4
        assert await peer.status(4) == 200
        await gate.accepted.wait()
        peer.write(bidi, b"and late", end=True)
        stream = await accept_bidi(gate.session)
        assert await read_all(stream) == b"early and late"
        await send_all(stream, b"answer")
        stream.finish()
        assert await read_all(await accept_uni(gate.session)) == b"uni"
        assert await receive_datagram(gate.session) == b"datagram"
        await peer.wait(lambda: bidi in peer.raw_ended)
        assert bytes(peer.raw[bidi]) == b"answer"


async def test_streams_before_the_answer():
    """What arrives while the handler makes up its mind is kept, a stream reset in the meantime is not."""
    gate = Gate()
    async with serving(gate) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await gate.asked.wait()
        kept, lost = peer.open_stream(session, b"kept"), peer.open_stream(session, b"lost")
        peer.quic.reset_stream(lost, 0x52E4A40FA8DB)
        peer.flush()
        await peer.wait(lambda: peer.reset_code(lost))
        gate.open.set()
        await peer.status(session)
        stream = await accept_bidi(gate.session)
        assert stream.stream_id == kept
        assert await stream.receive_some() == b"kept"


class Backend:
    """Counts what a stream returns, and records how it is refused."""

    send_high = 100

    def __init__(self):
        self.consumed = 0
        self.asked = []

    def stream_consumed(self, stream_id, count):
        self.consumed += count

    def stream_done(self, stream_id):
        self.asked.append("done")


async def test_a_reset_that_keeps_bytes():
    """A held stream whose reset keeps some of its bytes reaches the session with these; without any it does not."""
    early = EarlyArrivals(Limits())
    backend, others = Backend(), Backend()
    kept, lost = ReceiveStream(backend, 2), ReceiveStream(others, 6)
    for stream in (kept, lost):
        early.hold_stream(stream, 0, trio.current_time())
        stream.deliver(b"abc", False)
        stream.deliver(b"def", False)
    kept.deliver_reset(7, 2)
    lost.deliver_reset(7, 6)
    assert (backend.consumed, backend.asked) == (2, [])
    assert (others.consumed, others.asked) == (6, ["done"])
    streams, _ = early.take(0)
    assert streams == [kept]
    assert not early
    assert early._bytes == 0
    assert await kept.receive_some() == b"abcd"
    with pytest.raises(StreamReset):
        await kept.receive_some()
    assert (backend.consumed, backend.asked) == (6, ["done"])


async def test_the_last_split_prefix():
    """The prefix of a stream may arrive one byte at a time."""
    gate = Gate()
    gate.open.set()
    async with serving(gate) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        stream_id = peer.quic.get_next_available_stream_id()
        for byte in bytes.fromhex("4041 c000000000000000") + b"payload":
            peer.write(stream_id, bytes([byte]))
            await trio.lowlevel.checkpoint()
        peer.write(stream_id, b"", end=True)
        assert await read_all(await accept_bidi(gate.session)) == b"payload"


async def test_too_many_early_streams():
    """Early streams past Limits.max_early_streams are refused with their own code, and the rest are kept."""
    gate = Gate()
    async with (
        serving(gate, limits=attrs.evolve(Limits(), max_early_streams=3)) as served,
        connect_http3(served.port) as peer,
    ):
        session = peer.connect("/")
        await gate.asked.wait()
        streams = [peer.open_stream(session, b"x", end=True) for _ in range(5)]
        for stream in streams[3:]:
            assert await peer.wait(lambda stream=stream: peer.reset_code(stream)) == BUFFERED_STREAM_REJECTED
        gate.open.set()
        await peer.status(session)
        for stream_id in streams[:3]:
            assert (await accept_bidi(gate.session)).stream_id == stream_id


async def test_too_many_early_bytes():
    """Early streams hold Limits.max_early_bytes together; credit for what is refused returns to the client."""
    gate = Gate()
    limits = attrs.evolve(Limits(), max_early_bytes=1000, connection_window=16 * 1024)
    async with serving(gate, limits=limits) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await gate.asked.wait()
        small = peer.open_stream(session, b"s" * 400, end=True)
        for _ in range(20):
            big = peer.open_stream(session, b"b" * 1200)
            assert await peer.wait(lambda big=big: peer.reset_code(big)) == BUFFERED_STREAM_REJECTED
            assert await peer.wait(lambda big=big: peer.stop_code(big)) == BUFFERED_STREAM_REJECTED
        gate.open.set()
        await peer.status(session)
        stream = await accept_bidi(gate.session)
        assert stream.stream_id == small
        assert await read_all(stream) == b"s" * 400


async def test_early_datagrams_are_bounded():
    """Early datagrams beyond the bounds are dropped, the first ones stay."""
    gate = Gate()
    async with (
        serving(gate, limits=attrs.evolve(Limits(), max_early_bytes=1000)) as served,
        connect_http3(served.port) as peer,
    ):
        session = peer.connect("/")
        await gate.asked.wait()
        for number in range(20):
            peer.h3.send_datagram(session, bytes([number]) * 100)
            peer.flush()
        # Once a stream that was sent after them arrives, the datagrams were processed.
        await peer.status(peer.connect("/", protocol="none"))
        gate.open.set()
        await peer.status(session)
        for number in range(10):
            assert await receive_datagram(gate.session) == bytes([number]) * 100
        peer.h3.send_datagram(session, b"next")
        peer.flush()
        assert await receive_datagram(gate.session) == b"next"


async def test_streams_of_a_refused_session():
    """Early streams of a session that is refused are refused too, and so are those that come later."""
    gate = Gate()
    async with serving(lambda request: refuse_when(gate, request)) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await gate.asked.wait()
        early = peer.open_stream(session, b"x")
        await peer.status(peer.connect("/", protocol="none"))
        gate.open.set()
        assert await peer.status(session) == 403
        assert await peer.wait(lambda: peer.reset_code(early)) == BUFFERED_STREAM_REJECTED
        late = peer.open_stream(session, b"x")
        assert await peer.wait(lambda: peer.reset_code(late)) == 0x170D7B68


async def refuse_when(gate, request):
    gate.asked.set()
    await gate.open.wait()
    request.reject(403)


async def test_what_waits_too_long_is_refused():
    """Streams without their first bytes, requests without headers, streams of no session: all are refused in time."""
    async with (
        serving(limits=attrs.evolve(Limits(), setup_timeout=0.05)) as served,
        connect_http3(served.port) as peer,
    ):
        orphan = peer.open_stream(400, b"x")
        silent = peer.quic.get_next_available_stream_id(is_unidirectional=True)
        peer.write(silent, b"\x40")
        assert await peer.wait(lambda: peer.reset_code(orphan)) == BUFFERED_STREAM_REJECTED
        assert await peer.wait(lambda: peer.stop_code(silent)) == 0x10C
        slow = peer.quic.get_next_available_stream_id()
        peer.write(slow, b"\x01\x40\xff\x00")
        assert await peer.wait(lambda: peer.reset_code(slow)) == 0x10D
        assert await peer.wait(lambda: peer.stop_code(slow)) == 0x10D


async def test_a_session_id_that_is_none():
    """A stream whose session id is no client's bidirectional stream closes the connection with H3_ID_ERROR."""
    async with serving() as served, connect_http3(served.port) as peer:
        peer.open_stream(3, b"x")
        assert await peer.wait(lambda: peer.closed_code) == 0x108
