"""Shutting down: earlier requests are answered, later ones are refused, and no client can delay the end."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
from aioquic.buffer import Buffer
from aioquic.quic.events import StreamDataReceived

import moqt_trio as moqt
from moqt_trio.limits import Limits
from tests.http.serving import CERTIFICATE, WAIT, open_tls, read_all, read_until
from tests.http.test_requests import Application, Http2Peer
from tests.peers.aioquic_http3 import connect_http3

GOAWAY = 0x7
SERVER_CONTROL = 3


class Slow(Application):
    """Answers when it may."""

    async def slow(self, receive, send):
        self.started.set()
        await self.resume.wait()
        await self.hello(receive, send)


@pytest.fixture
def application():
    return Slow()


async def start(nursery, application, handler=None, **limits):
    routes = {} if handler is None else {"/session": handler}
    serve = partial(moqt.serve, app=application, certificate=CERTIFICATE, limits=attrs.evolve(Limits(), **limits))
    return await nursery.start(serve, moqt.Router(routes), "localhost", 0)


def goaways(peer):
    """Return the stream ids in the GOAWAY frames that came."""
    events = [e for e in peer.quic_events if isinstance(e, StreamDataReceived) and e.stream_id == SERVER_CONTROL]
    buffer = Buffer(data=b"".join(event.data for event in events)[1:])
    found = []
    while not buffer.eof():
        kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
        value = buffer.pull_bytes(length)
        if kind == GOAWAY:
            found.append(Buffer(data=value).pull_uint_var())
    return found


async def test_http3(application):
    """Over HTTP/3: GOAWAY names the first request that is not served, those before are answered, then comes the end."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application)
        async with connect_http3(listener.port) as peer:
            assert await peer.answer(peer.request("/hello")) == (200, b"hello")
            slow = peer.request("/slow")
            await application.started.wait()
            began = trio.current_time()
            nursery.start_soon(listener.aclose, WAIT)
            assert await peer.wait(lambda: goaways(peer)) == [8]
            late = peer.request("/hello")
            assert await peer.wait(lambda: peer.reset_code(late)) == 0x10B
            application.resume.set()
            assert await peer.answer(slow) == (200, b"hello")
            await peer.wait(lambda: peer.closed_code is not None)
            assert peer.closed_code == 0x100
        with trio.fail_after(WAIT):
            await listener.aclose()
        assert trio.current_time() - began < WAIT / 2


async def test_large_answer(application):
    """An answer that is still on its way when the server leaves arrives whole."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await application(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(200_000)})
        application.started.set()

    async with trio.open_nursery() as nursery:
        listener = await start(nursery, app)
        async with connect_http3(listener.port) as peer:
            stream = peer.request("/")
            await application.started.wait()
            nursery.start_soon(listener.aclose, WAIT)
            assert await peer.answer(stream) == (200, bytes(200_000))


async def test_tcp(application):
    """Over TCP: idle connections close, a request in progress is answered, and new connections are refused."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application)
        idle, busy = await open_tls(listener.port), await open_tls(listener.port)
        await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await application.started.wait()
        nursery.start_soon(listener.aclose, WAIT)
        assert await read_all(idle) == b""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", listener.port)
        application.resume.set()
        assert (await read_all(busy)).endswith(b"hello")
        await idle.aclose()
        await busy.aclose()


async def test_http2(application):
    """Over HTTP/2: the request in progress is answered, and GOAWAY ends the connection."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application)
        peer = await Http2Peer.connect(listener.port)
        number = await peer.request("/slow")
        await application.started.wait()
        nursery.start_soon(listener.aclose, WAIT)
        application.resume.set()
        assert await peer.body(number) == b"hello"
        with trio.fail_after(WAIT):
            await peer.stream.receive_some(65536)
        await trio.aclose_forcefully(peer.stream)


@pytest.mark.parametrize("path", ["/slow", "/flood"])
async def test_grace_runs_out(application, path):
    """What is not done within the grace is cut off: an application that hangs, and a client that reads nothing."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application, close_timeout=0.1)
        stream = await open_tls(listener.port, receive_buffer=16384)
        await stream.send_all(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
        await application.started.wait()
        async with connect_http3(listener.port) as peer:
            peer.quic._write_stream_limits = lambda *args, **kwargs: None
            peer.request(path)
            await peer.wait(lambda: path == "/slow" or peer.events)
            with trio.fail_after(WAIT):
                await listener.aclose(grace=0.05)
                await application.ended.wait()
        await trio.aclose_forcefully(stream)


async def test_cancelled(application):
    """Cancelling the server cuts every connection at once, also one that is sending to a client that reads nothing."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application, close_timeout=0.1)
        stream = await open_tls(listener.port, receive_buffer=16384)
        await stream.send_all(b"GET /flood HTTP/1.1\r\nHost: h\r\n\r\n")
        await application.started.wait()
        nursery.cancel_scope.cancel()
        nursery.cancel_scope.deadline = trio.current_time()
    assert application.ended.is_set()
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


async def test_sessions_are_asked_to_leave(application):
    """A WebTransport session of a connection that goes away gets DRAIN, and may go on until the grace ends."""
    answered = trio.Event()

    async def handler(request):
        async with request.accept() as session:
            answered.set()
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application, handler)
        async with connect_http3(listener.port) as peer:
            offer = ((b"wt-available-protocols", b'"moq-lite-06"'),)
            session = peer.connect("/session", headers=offer)
            assert await peer.status(session) == 200
            await answered.wait()
            nursery.start_soon(listener.aclose, 0.2)
            assert await peer.wait(lambda: goaways(peer)) == [session + 4]
            await peer.wait(lambda: (0x78AE, b"") in peer.capsules(session))


async def test_sessions_of_browsers(application):
    """While a page has a session GOAWAY waits, as Chromium would lose streams that the server opens after it: the
    page gets DRAIN, later requests are refused, and GOAWAY follows the end of the session."""
    opened = trio.Event()

    async def handler(request):
        async with request.accept() as session:
            opened.set()
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application, handler)
        async with connect_http3(listener.port) as peer:
            fields = ((b"wt-available-protocols", b'"moq-lite-06"'), (b"origin", b"https://localhost"))
            session = peer.connect("/session", headers=fields)
            assert await peer.status(session) == 200
            slow = peer.request("/slow")
            await application.started.wait()
            await opened.wait()
            nursery.start_soon(listener.aclose, WAIT)
            await peer.wait(lambda: (0x78AE, b"") in peer.capsules(session))
            late = peer.request("/hello")
            assert await peer.wait(lambda: peer.reset_code(late)) == 0x10B
            assert goaways(peer) == []
            peer.h3.send_data(session, bytes.fromhex("6843 04 00000000"), end_stream=True)
            peer.flush()
            assert await peer.wait(lambda: goaways(peer)) == [slow + 4]
            application.resume.set()
            assert await peer.answer(slow) == (200, b"hello")
            await peer.wait(lambda: peer.closed_code == 0x100)


async def test_port_is_free(application):
    """When `aclose` returns both ports can be bound again, with a client still in TIME_WAIT."""
    async with trio.open_nursery() as nursery:
        listener = await start(nursery, application)
        stream = await open_tls(listener.port)
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_until(stream, b"hello")
        await listener.aclose(grace=1)
        serve = partial(moqt.serve, app=application, certificate=CERTIFICATE)
        again = await nursery.start(serve, moqt.Router({}), "localhost", listener.port)
        assert again.port == listener.port
        await again.aclose(grace=0)
        await trio.aclose_forcefully(stream)
