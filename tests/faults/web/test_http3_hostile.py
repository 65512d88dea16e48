"""Clients that break or strain HTTP/3: each is answered, refused or cut off, and the next one is served."""

from __future__ import annotations

import attrs
import pytest
import trio
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import FrameType, encode_frame

from moqt_trio.limits import KIB, Limits
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.webtransport.serving import serving

EXCESSIVE_LOAD = 0x107


@pytest.fixture
async def served():
    async with serving(limits=attrs.evolve(Limits(), max_header_bytes=8 * KIB)) as server:
        yield server
        # Whatever a test did to the server, a fresh client is served.
        with trio.fail_after(1):
            async with connect_http3(server.port) as peer:
                assert await peer.status(peer.request("/")) == 404


def control_stream(peer):
    return peer.h3._local_control_stream_id


async def test_headers_beyond_the_limit_unpacked(served):
    """Headers that are too large once decoded are answered with 431; the connection lives on."""
    async with connect_http3(served.port) as peer:
        stream = peer.request("/", headers=((b"x-long", b"a" * 10 * KIB),))
        assert await peer.status(stream) == 431
        assert await peer.status(peer.request("/")) == 404


async def test_many_small_headers(served):
    """Fields count with 32 bytes of overhead each, so that many empty ones are too large as well."""
    async with connect_http3(served.port) as peer:
        stream = peer.request("/", headers=tuple((b"a%d" % number, b"") for number in range(300)))
        assert await peer.status(stream) == 431


async def test_headers_that_never_end(served):
    """A HEADERS frame of a gigabyte is refused once it passes the limit, before it is kept."""
    async with connect_http3(served.port) as peer:
        stream = peer.quic.get_next_available_stream_id()
        peer.write(stream, encode_uint_var(FrameType.HEADERS) + encode_uint_var(2**30))
        for _ in range(10):
            peer.write(stream, bytes(1000))
        assert await peer.status(stream) == 431
        assert await peer.status(peer.request("/")) == 404


async def test_settings_that_never_end(served):
    """A SETTINGS frame that is too large closes the connection, before it is kept."""
    async with connect_http3(served.port) as peer:
        peer.write(control_stream(peer), encode_uint_var(FrameType.MAX_PUSH_ID) + encode_uint_var(2**40))
        for _ in range(10):
            peer.write(control_stream(peer), bytes(1000))
        assert await peer.wait(lambda: peer.closed_code) == EXCESSIVE_LOAD


async def test_a_dynamic_table_is_not_offered(served):
    """QPACK's dynamic table, by which a small request unfolds to a huge one, has no room at all."""
    async with connect_http3(served.port) as peer:
        assert peer.h3.received_settings[0x1] == 0
        assert peer.h3.received_settings[0x7] == 0
        # Set Dynamic Table Capacity to 4096 all the same (RFC 9204, section 4.3.1).
        peer.write(peer.h3._local_encoder_stream_id, bytes.fromhex("3fe11f"))
        assert await peer.wait(lambda: peer.closed_code) == 0x201


@pytest.mark.parametrize(
    "section",
    [
        ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a")),
        ((b":method", b"GET"), (b":authority", b"a"), (b":path", b"/"), (b"Upper", b"x")),
        ((b":authority", b"a"), (b":path", b"/")),
        ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"), (b"connection", b"x")),
    ],
    ids=["no path", "upper case", "no method", "connection"],
)
async def test_malformed_requests(served, section):
    """A malformed request is refused, by status or by closing the connection, and harms no other client."""
    async with connect_http3(served.port) as peer:
        stream = peer.quic.get_next_available_stream_id()
        peer.h3.send_headers(stream, list(section), end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.closed_code == 0x10E or peer.headers_of(stream) is not None)


async def test_an_unspeakable_path():
    """A path outside ASCII is 400, and is not shown to the application."""

    async def app(scope, receive, send):
        pytest.fail("the application was called")

    async with serving(app=app) as server, connect_http3(server.port) as peer:
        for path in (b"/\xff", b"/\xc3\xa9"):
            stream = peer.quic.get_next_available_stream_id()
            section = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
            peer.h3.send_headers(stream, section, end_stream=True)
            peer.flush()
            assert await peer.status(stream) == 400


async def test_unknown_frames_are_passed_over(served):
    """Frames of unknown types, before and after the headers, are dropped as they arrive."""
    async with connect_http3(served.port) as peer:
        peer.write(control_stream(peer), encode_frame(0x21 + 31 * 7, bytes(50_000)))
        stream = peer.quic.get_next_available_stream_id()
        for _ in range(20):
            peer.write(stream, encode_frame(0x21 + 31 * 5, bytes(50_000)))
        peer.h3.send_headers(
            stream,
            [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")],
            end_stream=True,
        )
        peer.flush()
        assert await peer.status(stream) == 404


async def test_unknown_streams_are_refused(served):
    """A unidirectional stream of an unknown type is stopped, and gives its place and its credit back."""
    async with connect_http3(served.port) as peer:
        for _ in range(300):
            await peer.wait(lambda: uni_allowed(peer))
            stream = peer.quic.get_next_available_stream_id(is_unidirectional=True)
            peer.write(stream, b"\x40\x40" + bytes(20_000))
            assert await peer.wait(lambda stream=stream: peer.stop_code(stream)) == 0x103
        assert await peer.status(peer.request("/")) == 404


def uni_allowed(peer):
    """Return whether the server allows one more unidirectional stream."""
    return peer.quic.get_next_available_stream_id(is_unidirectional=True) // 4 < peer.quic._remote_max_streams_uni


def bidi_allowed(peer):
    """Return whether the server allows one more bidirectional stream."""
    return peer.quic.get_next_available_stream_id() // 4 < peer.quic._remote_max_streams_bidi


async def test_streams_without_an_end(served):
    """A request stream that is ended or reset before its headers leaves no state."""
    async with connect_http3(served.port) as peer:
        for number in range(200):
            await peer.wait(lambda: bidi_allowed(peer))
            stream = peer.quic.get_next_available_stream_id()
            if number % 2:
                peer.write(stream, b"", end=True)
            else:
                peer.write(stream, b"\x01")
                peer.quic.reset_stream(stream, 0x10C)
                peer.flush()
            await peer.wait(lambda stream=stream: peer.reset_code(stream) is not None)
        assert await peer.status(peer.request("/")) == 404
    await served.wait_ended()


@pytest.mark.parametrize(
    ("frame", "code"),
    [(FrameType.DATA, 0x105), (FrameType.SETTINGS, 0x105), (0x2, 0x105)],
    ids=["DATA", "second SETTINGS", "HTTP/2"],
)
async def test_frames_that_do_not_belong_on_the_control_stream(served, frame, code):
    """A frame that is illegal on the control stream closes the connection with HTTP/3's code for it."""
    async with connect_http3(served.port) as peer:
        peer.write(control_stream(peer), encode_frame(frame, b""))
        assert await peer.wait(lambda: peer.closed_code) == code


async def test_stopping_the_control_stream(served, caplog):
    """A client that gives up stops our control stream: the connection ends, and nothing is logged as an error."""
    async with connect_http3(served.port) as peer:
        peer.quic.stop_stream(peer.h3._peer_control_stream_id, 0x100)
        peer.flush()
        assert await peer.wait(lambda: peer.closed_code) == 0x104
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_datagrams_for_no_session(served):
    """Datagrams without an id, or for sessions that do not exist, are dropped."""
    async with connect_http3(served.port) as peer:
        for data in (b"", b"\x40", b"\x00", encode_uint_var(2**61) + b"x", encode_uint_var(5) + bytes(1000)):
            for _ in range(100):
                peer.quic.send_datagram_frame(data)
            peer.flush()
        assert await peer.status(peer.request("/")) == 404


async def test_resetting_the_control_stream(served):
    """A control stream that is reset or ended closes the connection with H3_CLOSED_CRITICAL_STREAM."""
    for end in (True, False):
        async with connect_http3(served.port) as peer:
            if end:
                peer.write(control_stream(peer), b"", end=True)
            else:
                peer.quic.reset_stream(control_stream(peer), 0x100)
                peer.flush()
            assert await peer.wait(lambda peer=peer: peer.closed_code) == 0x104


async def test_streams_that_end_within_their_prefix(served):
    """A stream that ends or is reset before its session id is complete is dropped."""
    async with connect_http3(served.port) as peer:
        for prefix in (b"\x40", b"\x40\x54", b"\x40\x54\xc0"):
            for end in (True, False):
                stream = peer.quic.get_next_available_stream_id(is_unidirectional=True)
                peer.write(stream, prefix, end=end)
                if not end:
                    peer.quic.reset_stream(stream, 0x100)
                    peer.flush()
        stream = peer.quic.get_next_available_stream_id()
        peer.write(stream, b"\x40\x41\x40", end=True)
        assert await peer.wait(lambda: peer.reset_code(stream)) == 0x10C
        assert await peer.status(peer.request("/")) == 404


async def test_trailers_beyond_the_limit():
    """Trailers that are too large cut their request off, and the application receives a disconnect."""
    started, disconnected = trio.Event(), trio.Event()

    async def app(scope, receive, send):
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected.set()

    limits = attrs.evolve(Limits(), max_header_bytes=8 * KIB)
    async with serving(app=app, limits=limits) as server, connect_http3(server.port) as peer:
        stream = peer.request("/", method="POST", body=b"x", end=False)
        await started.wait()
        peer.h3.send_headers(stream, [(b"x", b"y" * 9000)], end_stream=True)
        peer.flush()
        assert await peer.wait(lambda: peer.reset_code(stream)) == EXCESSIVE_LOAD
        with trio.fail_after(5):
            await disconnected.wait()


async def test_cut_off_before_it_began(caplog):
    """A request that is cut off by what came in the same packet never reaches the application; the next one does."""
    called = []

    async def app(scope, receive, send):
        called.append(scope["path"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    limits = attrs.evolve(Limits(), max_header_bytes=500)
    async with serving(app=app, limits=limits) as server, connect_http3(server.port) as peer:
        stream = peer.quic.get_next_available_stream_id()
        target = [(b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/cut")]
        peer.h3.send_headers(stream, [(b":method", b"POST"), *target])
        peer.h3.send_headers(stream, [(b"x", b"y" * 600)], end_stream=True)
        peer.flush()
        assert await peer.wait(lambda: peer.reset_code(stream)) == EXCESSIVE_LOAD
        assert await peer.status(peer.request("/next")) == 204
    assert called == ["/next"]
    assert not caplog.records


async def test_a_bug_below_ends_one_connection(served, monkeypatch, caplog):
    """An exception within HTTP/3 closes its connection with H3_INTERNAL_ERROR and is logged; the others go on."""
    async with connect_http3(served.port) as peer, connect_http3(served.port) as other:
        (first, _) = served.connections

        def fail(event):
            raise KeyError("a bug")

        monkeypatch.setattr(first.handler.http3._h3, "handle_event", fail)
        peer.request("/")
        assert await peer.wait(lambda: peer.closed_code) == 0x102
        assert await other.status(other.request("/")) == 404
    assert "a bug" in caplog.text


async def test_a_scope_that_cannot_be_built(monkeypatch, caplog):
    """A failure before the application is called resets that request, and no other."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with serving(app=app) as server, connect_http3(server.port) as peer:
        with monkeypatch.context() as patch:
            patch.setattr("hypercorn.protocol.http_stream.unquote", lambda path: 1 // 0)
            stream = peer.request("/")
            assert await peer.wait(lambda: peer.reset_code(stream)) == 0x102
        assert await peer.status(peer.request("/")) == 204
    assert "ZeroDivisionError" in caplog.text
