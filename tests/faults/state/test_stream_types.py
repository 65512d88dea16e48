"""Streams of unknown types, of types of the other direction, and a second one of a type that may be opened once."""

from __future__ import annotations

import pytest
import trio

from tests.faults.raw_peer import code_of_reset, code_of_stop, settled
from tests.faults.state_peer import VIOLATED, closing, hostile, still_serves
from tests.faults.state_wire import (
    ALL,
    CANCELLED,
    DEVELOP,
    IN_BAND,
    LITE_03,
    LITE_04,
    TUPLES,
    TYPED,
    UNROUTABLE,
    WITH_SETUP,
)

each_typed_version = pytest.mark.parametrize("version", TYPED)
each_in_band_version = pytest.mark.parametrize("version", IN_BAND)
each_direction = pytest.mark.parametrize("bidi", [True, False], ids=["bidi", "uni"])

SIDES = pytest.mark.parametrize("peer_is_client", [True, False], ids=["client", "server"])


@each_typed_version
@SIDES
async def test_unknown_stream_types_break_only_their_streams(version, peer_is_client):
    """From moq-lite-03 on such a stream is reset and stopped, leaves nothing, and the session goes on."""
    async with hostile(version, peer_is_client=peer_is_client) as (peer, session, wire):
        await settled()
        kept = len(session._context.connection.streams)
        for head in (b"\x07", b"\x3f", b"\x40\x40", b"\xc0\xff\xff\xff\xff\xff\xff\xff"):
            bidi, uni = await peer.open_bidi(), await peer.open_uni()
            for stream in (bidi, uni):
                stream.write(head + b"and something after it")
                assert await code_of_stop(stream) == CANCELLED
            assert await code_of_reset(bidi) == CANCELLED
        await settled()
        assert len(session._context.connection.streams) == kept
        await still_serves(peer, wire)
        assert session.closed is None


@each_in_band_version
@each_direction
@SIDES
async def test_unknown_stream_types_close_the_session(version, bidi, peer_is_client):
    """Up to moq-lite-02 a stream of unknown type is a violation of the session."""
    async with hostile(version, peer_is_client=peer_is_client) as (peer, session, _):
        stream = await (peer.open_bidi() if bidi else peer.open_uni())
        stream.write(b"\x3f")
        assert await closing(peer) == VIOLATED
        assert session.closed is not None


@pytest.mark.parametrize("version", ALL)
@each_direction
async def test_stream_types_of_the_other_direction_are_unknown(version, bidi):
    """A group on a bidirectional stream, and a subscription on a unidirectional one, are of no known type."""
    async with hostile(version) as (peer, session, wire):
        stream = await (peer.open_bidi() if bidi else peer.open_uni())
        stream.write(wire.group(0, 1) if bidi else wire.subscribe(0))
        if version in IN_BAND:
            assert await closing(peer) == VIOLATED
        else:
            assert await code_of_stop(stream) == CANCELLED
            assert session.closed is None


@pytest.mark.parametrize("version", WITH_SETUP)
@SIDES
async def test_a_second_setup_closes_the_session(version, peer_is_client):
    """SETUP is sent once: a second SETUP stream is a violation, before any of its message has arrived."""
    async with hostile(version, peer_is_client=peer_is_client) as (peer, _, wire):
        await settled()
        stream = await peer.open_uni()
        stream.write(wire.setup[:1])
        assert await closing(peer) == VIOLATED


@pytest.mark.parametrize("version", [LITE_03, LITE_04])
async def test_setup_streams_that_a_version_lacks(version):
    """In moq-lite-03 and -04 a SETUP stream is one of unknown type."""
    async with hostile(version) as (peer, _, wire):
        stream = await peer.open_uni()
        stream.write(wire.setup, fin=True)
        with trio.fail_after(1):
            await settled()
        await still_serves(peer, wire)


@each_in_band_version
@SIDES
async def test_a_second_session_stream_closes_the_session(version, peer_is_client):
    """There is one handshake, and only a client begins it; in both forms another one is a violation."""
    for head in (b"", b"\x00"):
        async with hostile(version, peer_is_client=peer_is_client) as (peer, _, wire):
            stream = await peer.open_bidi()
            stream.write(head or wire.hello)
            assert await closing(peer) == VIOLATED


@each_in_band_version
async def test_a_second_handshake_on_the_same_stream(version):
    """After the handshake its stream carries the bit rate: what is no such message closes the session.

    In moq-transfork-03 the bytes of a handshake are bit rates too, until one is not complete.
    """
    async with hostile(version) as (peer, _, wire):
        peer.streams[0].write(wire.hello + b"\x00\x40", fin=True)
        assert await closing(peer) == VIOLATED


@pytest.mark.parametrize("version", [name for name in TYPED if name != LITE_03])
@pytest.mark.parametrize("same_stream", [True, False])
async def test_a_second_goaway_closes_the_session(version, same_stream):
    """The first one is reported, the second is a violation, on the same stream or on another."""
    async with hostile(version, peer_is_client=False) as (peer, session, wire):
        stream = await peer.open_bidi()
        stream.write(b"\x05" + wire.framed(b"\x01/"))
        assert await session.wait_goaway() == "/"
        if not same_stream:
            stream = await peer.open_bidi()
            stream.write(b"\x05")
        stream.write(wire.framed(b"\x00"))
        assert await closing(peer) == VIOLATED


@pytest.mark.parametrize("version", [name for name in TYPED if name != LITE_03])
async def test_a_client_that_redirects_the_server(version):
    """Only a server may name a URI in GOAWAY: a client that does breaks the session."""
    async with hostile(version) as (peer, session, wire):
        stream = await peer.open_bidi()
        stream.write(b"\x05" + wire.framed(b"\x01/"))
        assert await closing(peer) == VIOLATED
        assert session._context.core.goaway_received is None


@each_typed_version
async def test_a_second_probe_is_answered_like_the_first(version):
    """Probes are bounded as requests are, and otherwise as many as the peer wants; each has its own answer."""
    async with hostile(version) as (peer, session, wire):
        answers = []
        for _ in range(2):
            stream = await peer.open_bidi()
            stream.write(b"\x04")
            answers.append(await stream.receive_some())
            stream.write(b"\x01\x00" if version == LITE_03 else b"\x02\x00\x00")
            answers.append(await stream.receive_some())
        # Nothing is measured on this link, which 0 stands for.
        assert answers == [b"\x01\x00" if version == LITE_03 else b"\x02\x00\x00"] * 4
        assert session.closed is None
        await still_serves(peer, wire)


@pytest.mark.parametrize("version", WITH_SETUP)
@pytest.mark.parametrize("parameter", ["02 02 2f61", "03 01 01"], ids=["path", "role"])
async def test_a_server_with_parameters_of_a_client(version, parameter):
    """A path or a role in a server's SETUP is a violation of the session."""
    async with hostile(version, peer_is_client=False, setup=False) as (peer, _, wire):
        stream = await peer.open_uni()
        stream.write(b"\x01" + wire.framed(b"\x01" + bytes.fromhex(parameter)), fin=True)
        assert await closing(peer) == VIOLATED


@pytest.mark.parametrize("version", ALL)
async def test_an_answer_where_a_request_is_due(version):
    """The opener of a subscribe stream sends the request: SUBSCRIBE_OK there does not decode as one.

    It closes the session. Before moq-lite it has the form of a request, for a track that no path can name.
    """
    async with hostile(version) as (peer, session, wire):
        stream = await peer.open_bidi()
        stream.write(b"\x02" + wire.accepted())
        if version in TUPLES:
            assert await code_of_reset(stream) == (wire.no_track if version == DEVELOP else UNROUTABLE)
            await still_serves(peer, wire)
            assert session.closed is None
        else:
            assert await closing(peer) == VIOLATED


async def test_stream_types_of_develop_come_in_one_byte():
    """gomoqt reads and writes a single byte: the first half of a longer varint is an unknown type at once."""
    async with hostile(DEVELOP) as (peer, _, _wire):
        stream = await peer.open_bidi()
        stream.write(b"\x40")
        assert await closing(peer) == VIOLATED
