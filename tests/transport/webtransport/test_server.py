"""The server against an independent client: sessions, requests and their mix on one connection."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
import trio.lowlevel
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.events import StreamReset as StreamWasReset

from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.limits import Limits
from moqt_trio.transport.code_mapping import stream_code_to_http3
from moqt_trio.transport.http3.constants import H3Error
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.transport.webtransport.server import serve_http3
from tests.peers.aioquic_http3 import connect_http3
from tests.peers.http3_frames import headers_frame
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram, send_all
from tests.transport.webtransport.serving import read_all, send_forever, serving

SETTINGS = {0x8: 1, 0x33: 1, 0x2B603742: 1, 0x2C7CF000: 1, 0x14E9CD29: 1, 0xC671706A: 1}
SESSION_GONE = 0x170D7B68
BUFFERED_STREAM_REJECTED = 0x3994BD84
SETTINGS_STREAM = bytes.fromhex("00 04 09 08 01 33 01 ab603742 01")
"""A control stream with SETTINGS: extended CONNECT, HTTP/3 datagrams, and WebTransport as of draft 02."""
REQUEST = headers_frame(
    (b":method", b"CONNECT"),
    (b":protocol", b"webtransport"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/echo"),
)


async def echo(request):
    """Echo every bidirectional stream, and every unidirectional one on a new one, until the client leaves."""
    if request.path != "/echo":
        request.reject(404)
        return
    session = request.accept(request.protocols[0] if request.protocols else None)

    async def bidi(stream):
        await send_all(stream, await read_all(stream))
        stream.finish()

    async def unis():
        while True:
            data = await read_all(await accept_uni(session))
            stream = await session.open_uni()
            await send_all(stream, data)
            stream.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unis)
        while True:
            nursery.start_soon(bidi, await accept_bidi(session))


async def ignore_closed(session_handler, request):
    try:
        await session_handler(request)
    except* SessionClosed:
        pass


async def quiet_echo(request):
    await ignore_closed(echo, request)


async def app(scope, receive, send):
    """Say hello, and the length of the body."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello %d" % len(body)})


async def test_settings_of_every_generation():
    """Each generation of WebTransport clients finds its setting."""
    async with serving() as served, connect_http3(served.port) as peer:
        settings = peer.h3.received_settings
    assert {key: settings.get(key) for key in SETTINGS} == SETTINGS


async def test_bidi_echo():
    """A client made of aioquic alone connects, and has its bytes echoed on a bidirectional stream."""
    payload = bytes(range(256)) * 1000
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/echo")
        assert await peer.status(session) == 200
        stream = peer.open_stream(session, payload, end=True)
        await peer.wait(lambda: stream in peer.raw_ended)
        assert bytes(peer.raw[stream]) == payload


async def test_uni_echo():
    """Unidirectional streams of both sides carry the prefix of the draft."""
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/echo")
        assert await peer.status(session) == 200
        peer.open_stream(session, b"one way", end=True, uni=True)
        event = await peer.wait(lambda: next((e for e in peer.events if hasattr(e, "session_id")), None))
        assert event.session_id == session
        assert event.data == b"one way"
        assert event.stream_id % 4 == 3


@pytest.mark.parametrize("protocol", ["webtransport", "webtransport-h3"])
async def test_both_names_of_the_protocol(protocol):
    """Both values of :protocol ask for a session."""
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        assert await peer.status(peer.connect("/echo", protocol=protocol)) == 200


async def test_subprotocol_is_answered():
    """The server answers with the chosen subprotocol, as a structured-field string."""
    offer = (b"wt-available-protocols", b'"moq-lite-06", "moq-lite-05"')
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/echo", headers=(offer,))
        assert await peer.status(session) == 200
        assert peer.headers_of(session)[b"wt-protocol"] == b'"moq-lite-06"'


async def test_no_offer_no_choice():
    """Without an offer the answer names no subprotocol."""
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        session = peer.connect("/echo")
        await peer.status(session)
        assert b"wt-protocol" not in peer.headers_of(session)


async def test_the_request_is_shown():
    """The handler sees path, query, authority, origin, the offer and the peer."""
    seen = []

    async def look(request):
        seen.append(request)
        request.reject(403, b"no")

    async with serving(look) as served, connect_http3(served.port) as peer:
        session = peer.connect("/a/b?token=1", headers=((b"origin", b"https://example.com"),))
        assert await peer.answer(session) == (403, b"no")
    (request,) = seen
    assert (request.path, request.query) == ("/a/b", "token=1")
    assert request.authority == "localhost"
    assert request.origin == "https://example.com"
    assert request.protocols == ()
    assert request.peer[0] == "127.0.0.1"


async def test_refusals():
    """An unknown path is 404, another :protocol 501, a plain CONNECT 501, a path that is none 400."""
    async with serving(quiet_echo) as served, connect_http3(served.port) as peer:
        assert await peer.status(peer.connect("/nowhere")) == 404
        assert await peer.status(peer.connect("/echo", protocol="websocket")) == 501
        assert await peer.status(peer.request("/echo", method="CONNECT", end=False)) == 501
        assert await peer.status(peer.connect("echo")) == 400
        assert await peer.status(peer.request("/", headers=((b":protocol", b"webtransport"),))) == 400
        assert await peer.status(peer.connect("/echo")) == 200


async def test_too_many_sessions():
    """A client has at most Limits.max_sessions sessions on a connection; one that ends makes room."""
    limits = attrs.evolve(Limits(), max_sessions=2)
    async with serving(quiet_echo, limits=limits) as served, connect_http3(served.port) as peer:
        first, second = peer.connect("/echo"), peer.connect("/echo")
        assert await peer.status(first) == await peer.status(second) == 200
        assert await peer.status(peer.connect("/echo")) == 429
        peer.h3.send_data(first, b"", end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(first))
        assert await peer.status(peer.connect("/echo")) == 200


async def test_sessions_and_requests_share_a_connection():
    """Two sessions and ordinary requests run side by side on one connection."""
    async with serving(quiet_echo, app=app) as served, connect_http3(served.port) as peer:
        one, two = peer.connect("/echo"), peer.connect("/echo")
        get = peer.request("/index.html")
        post = peer.request("/", method="POST", body=b"x" * 100_000)
        a, b = peer.open_stream(one, b"first", end=True), peer.open_stream(two, b"second", end=True)
        assert await peer.answer(get) == (200, b"hello 0")
        assert await peer.answer(post) == (200, b"hello 100000")
        await peer.wait(lambda: {a, b} <= peer.raw_ended)
        assert (bytes(peer.raw[a]), bytes(peer.raw[b])) == (b"first", b"second")


async def test_without_an_application():
    """Without an application an ordinary request is 404."""
    async with serving() as served, connect_http3(served.port) as peer:
        assert await peer.answer(peer.request("/")) == (404, b"")


async def test_datagrams():
    """Datagrams go both ways, under the quarter of the session's id."""

    async def reflect(request):
        session = request.accept()
        while True:
            session.send_datagram(b"re: " + await receive_datagram(session))

    async def quiet(request):
        await ignore_closed(reflect, request)

    async with serving(quiet) as served, connect_http3(served.port) as peer:
        peer.request("/")
        session = peer.connect("/x")
        assert session == 4
        await peer.status(session)
        peer.h3.send_datagram(session, b"ping")
        peer.flush()
        await peer.wait(lambda: peer.datagrams)
        assert peer.datagrams == [(session, b"re: ping")]


async def test_close_by_the_server():
    """The server's close arrives as a capsule with code and reason, followed by FIN."""

    async def close(request):
        request.accept().close(0xBEEF, "enough")

    async with serving(close) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.wait(lambda: peer.ended(session))
        assert peer.capsules(session) == [(0x2843, bytes.fromhex("0000beef") + b"enough")]


async def test_close_by_the_client():
    """The client's capsule ends the session with its code and reason; the server answers with FIN."""
    over = []

    async def wait(request):
        over.append(await request.accept().wait_closed())

    async with serving(wait) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        capsule = bytes.fromhex("6843 07 0000002a 627965")
        for byte in capsule:
            peer.h3.send_data(session, bytes([byte]), end_stream=False)
            peer.flush()
        await peer.wait(lambda: peer.ended(session))
    (error,) = over
    assert (error.remote_code, error.reason, error.by_peer) == (0x2A, "bye", True)


async def test_fin_closes():
    """A CONNECT stream that ends without a capsule closes the session with code 0."""
    over = []

    async def wait(request):
        over.append(await request.accept().wait_closed())

    async with serving(wait) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        peer.h3.send_data(session, b"", end_stream=True)
        peer.flush()
        await peer.wait(lambda: peer.ended(session))
    assert (over[0].remote_code, over[0].by_peer) == (0, True)


async def test_end_of_a_session_resets_its_streams():
    """When a session ends, its streams are given up with WEBTRANSPORT_SESSION_GONE; those of others live on."""
    ready = trio.Event()

    async def handler(request):
        session = request.accept()
        if request.path == "/short":
            stream = await accept_bidi(session)
            assert await stream.receive_some() == b"hello"
            await ready.wait()
            session.close(1)
            with pytest.raises(SessionClosed):
                await stream.receive_some()
            with pytest.raises(SessionClosed):
                await send_all(stream, b"late")
            with pytest.raises(SessionClosed):
                await session.open_uni()
            with pytest.raises(SessionClosed):
                session.send_datagram(b"late")
        else:
            stream = await accept_bidi(session)
            await send_all(stream, await read_all(stream))
            stream.finish()
            await session.wait_closed()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        short, long = peer.connect("/short"), peer.connect("/long")
        await peer.status(short)
        await peer.status(long)
        doomed, safe = peer.open_stream(short, b"hello"), peer.open_stream(long, b"still")
        ready.set()
        assert await peer.wait(lambda: peer.reset_code(doomed)) == SESSION_GONE
        assert await peer.wait(lambda: peer.stop_code(doomed)) == SESSION_GONE
        late = peer.open_stream(short, b"late")
        assert await peer.wait(lambda: peer.reset_code(late)) == SESSION_GONE
        peer.write(safe, b" here", end=True)
        await peer.wait(lambda: safe in peer.raw_ended)
        assert bytes(peer.raw[safe]) == b"still here"


async def test_stream_codes_are_mapped():
    """A stream's error codes stand in HTTP/3's reserved range on the wire, both ways."""
    codes = []

    async def handler(request):
        session = request.accept()
        stream = await accept_bidi(session)
        stream.reset(0x2A)
        with pytest.raises(StreamReset) as caught:
            await read_all(stream)
        codes.append(caught.value.code)
        stream = await accept_bidi(session)
        stream.stop(30)
        with pytest.raises(StreamReset) as caught:
            await send_forever(stream)
        codes.append(caught.value.code)
        await session.wait_closed()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        await peer.status(session)
        stream = peer.open_stream(session, b"a")
        assert await peer.wait(lambda: peer.reset_code(stream)) == 0x52E4A40FA8DB + 0x2A + 0x2A // 30
        peer.quic.reset_stream(stream, stream_code_to_http3(0xFFFFFFFF))
        stream = peer.open_stream(session, b"b")
        assert await peer.wait(lambda: peer.stop_code(stream)) == 0x52E4A40FA8DB + 30 + 1
        peer.quic.stop_stream(stream, 0x1234)
        peer.flush()
        await peer.wait(lambda: len(codes) == 2)
    assert codes == [0xFFFFFFFF, 0x1234]


async def test_a_failing_handler_ends_its_session_only(caplog):
    """An exception in a handler closes that session with INTERNAL_ERROR and is logged; the others go on."""

    async def handler(request):
        if request.path == "/bad":
            request.accept()
            raise ValueError("boom")
        if request.path == "/worse":
            raise ValueError("boom")
        if request.path == "/nothing":
            return
        await quiet_echo(request)

    async with serving(handler, failing=True) as served, connect_http3(served.port) as peer:
        good, bad = peer.connect("/echo"), peer.connect("/bad")
        await peer.wait(lambda: peer.ended(bad))
        assert peer.capsules(bad) == [(0x2843, bytes(3) + b"\x01")]
        assert await peer.status(peer.connect("/worse")) == 500
        assert await peer.status(peer.connect("/nothing")) == 500
        stream = peer.open_stream(good, b"alive", end=True)
        await peer.wait(lambda: stream in peer.raw_ended)
    assert "boom" in caplog.text


async def test_request_is_answered_once():
    """A request takes one answer, and only sensible ones."""
    done = trio.Event()

    async def handler(request):
        with pytest.raises(ValueError, match="did not offer"):
            request.accept("other")
        with pytest.raises(ValueError, match="refuses nothing"):
            request.reject(200)
        request.accept()
        with pytest.raises(RuntimeError):
            request.accept()
        with pytest.raises(RuntimeError):
            request.reject(404)
        done.set()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        peer.connect("/")
        await done.wait()


async def test_client_gone_before_the_answer():
    """Accepting a client that has taken its request back raises SessionClosed."""
    outcome = []
    go, done = trio.Event(), trio.Event()

    async def handler(request):
        await go.wait()
        await request._session.wait_closed()
        try:
            request.accept()
        except SessionClosed as error:
            outcome.append(error)
        done.set()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        peer.quic.reset_stream(session, 0x10C)
        peer.flush()
        go.set()
        await done.wait()
        assert outcome[0].by_peer
        assert await peer.status(peer.connect("/", protocol="websocket")) == 501


async def test_the_end_of_the_connection_ends_everything():
    """When the connection ends each session ends, and serve_http3 returns."""
    over = []

    async def wait(request):
        over.append(await request.accept().wait_closed())

    async with serving(wait) as served:
        async with connect_http3(served.port) as peer:
            for path in ("/a", "/b"):
                await peer.status(peer.connect(path))
            peer.quic.close(error_code=stream_code_to_http3(9), reason_phrase="leaving")
            peer.flush()
        await served.wait_ended()
    assert [(error.remote_code, error.reason, error.by_peer) for error in over] == [(9, "leaving", True)] * 2


async def test_a_handler_that_ignores_the_end_is_cancelled():
    """A handler that goes on after the connection's end is cancelled after Limits.close_timeout."""
    cancelled = trio.Event()

    async def stubborn(request):
        request.accept()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(stubborn, limits=attrs.evolve(Limits(), close_timeout=0.05)) as served:
        async with connect_http3(served.port) as peer:
            await peer.status(peer.connect("/"))
        await served.wait_ended()
    assert cancelled.is_set()


@pytest.mark.parametrize("steps", range(12))
async def test_a_request_at_each_step_of_the_end(caplog, steps):
    """A server that is cancelled refuses what is requested meanwhile, whichever step of its end the request meets."""
    for _ in range(5):
        served = []

        async def on_session(request, served=served):
            served.append(request.path)
            request.accept()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()

        async with open_memory_pair() as (client, server), trio.open_nursery() as nursery:
            client.open_uni_nowait().write(SETTINGS_STREAM)
            nursery.start_soon(partial(serve_http3, server, on_session, limits=Limits()))
            client.open_bidi_nowait().write(REQUEST)
            while not served:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
            with trio.fail_after(5, shield=True):
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                if client.closed is None:
                    client.open_bidi_nowait().write(REQUEST)
                error = await client.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.remote_code == H3Error.NO_ERROR
        assert served == ["/echo"]
    assert not caplog.records


async def test_a_stream_that_is_reset_before_its_first_packet():
    """A client without RESET_STREAM_AT, as aioquic and Chromium, learns which session it belonged to, and the reset."""

    async def handler(request):
        session = request.accept()
        for _ in range(5):
            stream = await session.open_uni()
            stream.write(bytes(5000))
            stream.reset(7)
        await session.wait_closed()

    async with serving(handler) as served, connect_http3(served.port) as peer:
        session = peer.connect("/")
        assert await peer.status(session) == 200
        first = await peer.wait(lambda: next((s for s in range(3, 64, 4) if peer.reset_code(s) is not None), None))
        opened = [first + 4 * number for number in range(5)]
        for stream in opened:
            await peer.wait(lambda stream=stream: peer.reset_code(stream) is not None)
            events = [event for event in peer.quic_events if getattr(event, "stream_id", None) == stream]
            assert [type(event) for event in events] == [StreamDataReceived, StreamWasReset]
            assert events[0].data.startswith(bytes.fromhex("4054") + bytes([session]))
            assert events[1].error_code == stream_code_to_http3(7)
