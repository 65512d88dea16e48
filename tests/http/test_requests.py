"""Requests over TCP that go wrong: clients that leave, that do not read, that are slow; applications that are."""

from __future__ import annotations

import contextlib

import attrs
import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from hypercorn.config import Config

from moqt_trio.limits import KIB, Limits
from tests.http.serving import CERTIFICATE, WAIT, curl, open_tls, read_all, read_until, serving
from tests.peers.aioquic_http3 import connect_http3

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Application:
    """An ASGI application with a path for each fault, and a record of what it received."""

    def __init__(self):
        self.diary = []
        self.sent = 0
        self.started = trio.Event()
        self.resume = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        try:
            await getattr(self, scope["path"].strip("/"))(receive, send)
        finally:
            if scope["path"] != "/hello":
                self.ended.set()

    async def lifespan(self, receive, send):
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    async def hello(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def wait(self, receive, send):
        """Wait for the client to go away."""
        self.started.set()
        while (message := await receive())["type"] == "http.request":
            pass
        self.diary.append(message["type"])

    async def flood(self, receive, send):
        """Send until it receives that the client has disconnected."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:

            async def pour():
                while True:
                    await send({"type": "http.response.body", "body": bytes(4 * KIB), "more_body": True})
                    self.sent += 4 * KIB

            nursery.start_soon(pour)
            self.started.set()
            while (message := await receive())["type"] == "http.request":
                pass
            self.diary.append(message["type"])
            nursery.cancel_scope.cancel()

    async def blind_flood(self, receive, send):
        """Send until it fails, without a look at whether the client is connected."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.started.set()
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(4 * KIB), "more_body": True})
        except OSError:
            self.diary.append("OSError")
            raise

    async def unread(self, receive, send):
        """Does not read its body until it may, then answers with its size."""
        self.started.set()
        await self.resume.wait()
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def trailers(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def early(self, receive, send):
        """Answer without reading its body."""
        await self.hello(receive, send)


@pytest.fixture
def application():
    return Application()


class Http2Peer:
    """A client made of the h2 library over TLS. It grants no credit unless a test does."""

    def __init__(self, stream):
        self.stream = stream
        self.events = []
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))

    @classmethod
    async def connect(cls, port):
        peer = cls(await open_tls(port, "h2"))
        assert peer.stream.selected_alpn_protocol() == "h2"
        peer.h2.initiate_connection()
        await peer.flush()
        await peer.wait(h2.events.RemoteSettingsChanged)
        return peer

    async def flush(self):
        await self.stream.send_all(self.h2.data_to_send())

    async def request(self, path, *, body=None, end=True, headers=()):
        number = self.h2.get_next_available_stream_id()
        method = "GET" if body is None else "POST"
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *headers]
        self.h2.send_headers(number, fields, end_stream=body is None and end)
        await self.flush()
        return number

    async def wait(self, kind, number=None):
        """Wait for an event, reading until it is there."""
        with trio.fail_after(WAIT):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and number in (None, getattr(event, "stream_id", None)):
                        return event
                data = await self.stream.receive_some(65536)
                assert data, "the server closed the connection"
                self.events += self.h2.receive_data(data)
                await self.flush()

    async def body(self, number):
        """Wait for the end of an answer, and return its body."""
        await self.wait(h2.events.StreamEnded, number)
        pieces = (e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == number)
        return b"".join(pieces)

    async def send_body(self, number, body):
        """Send a body as far as the server's windows allow, and return how much that was."""
        sent = 0
        while sent < len(body):
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(body) - sent)
            if room <= 0:
                return sent
            self.h2.send_data(number, body[sent : sent + room], end_stream=sent + room == len(body))
            sent += room
            await self.flush()
        return sent


class TestDisconnect:
    """`http.disconnect` and its kin."""

    @pytest.mark.parametrize("path", [b"/wait", b"/flood"])
    async def test_connection_lost(self, application, path):
        """A client of HTTP/1.1 that disconnects is reported to the application, whether that waits or sends."""
        async with serving(application) as listener:
            stream = await open_tls(listener.port)
            await stream.send_all(REQUEST % path)
            with trio.fail_after(WAIT):
                await application.started.wait()
                await trio.aclose_forcefully(stream)
                await application.ended.wait()
        assert application.diary == ["http.disconnect"]

    async def test_http2_reset(self, application):
        """A request of HTTP/2 that is reset is reported to its application; the connection goes on."""
        async with serving(application) as listener:
            peer = await Http2Peer.connect(listener.port)
            number = await peer.request("/wait", end=False)
            with trio.fail_after(WAIT):
                await application.started.wait()
                peer.h2.reset_stream(number)
                await peer.flush()
                await application.ended.wait()
            assert await peer.body(await peer.request("/hello")) == b"hello"
            await trio.aclose_forcefully(peer.stream)
        assert application.diary == ["http.disconnect"]

    async def test_http2_connection_lost(self, application):
        """A client of HTTP/2 that disconnects is reported to the applications of its requests."""
        async with serving(application) as listener:
            peer = await Http2Peer.connect(listener.port)
            await peer.request("/wait", end=False)
            with trio.fail_after(WAIT):
                await application.started.wait()
                await trio.aclose_forcefully(peer.stream)
                await application.ended.wait()
        assert application.diary == ["http.disconnect"]

    @pytest.mark.parametrize("version", ["http/1.1", "h2"])
    async def test_sending_to_a_disconnected_client(self, application, version, caplog):
        """An application that only sends gets an OSError once its client has disconnected, and nothing is logged."""
        async with serving(application) as listener:
            if version == "h2":
                peer = await Http2Peer.connect(listener.port)
                await peer.request("/blind_flood")
                stream = peer.stream
            else:
                stream = await open_tls(listener.port, receive_buffer=16 * KIB)
                await stream.send_all(REQUEST % b"/blind_flood")
            with trio.fail_after(WAIT):
                await application.started.wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                await trio.aclose_forcefully(stream)
                await application.ended.wait()
        assert application.diary == ["OSError"]
        assert not caplog.records


class TestBackpressure:
    """What a slow side costs the other one."""

    async def test_client_does_not_read(self, application):
        """An application is held when its client of HTTP/1.1 stops reading, and everybody else is served."""
        async with serving(application) as listener:
            stream = await open_tls(listener.port, receive_buffer=16 * KIB)
            await stream.send_all(REQUEST % b"/flood")
            with trio.fail_after(WAIT):
                await application.started.wait()
                before = -1
                while application.sent != before:
                    before = application.sent
                    for _ in range(5):
                        assert "hello" in await curl(f"https://localhost:{listener.port}/hello")
            print(f"HTTP/1.1: {application.sent} bytes were taken from the application, into the kernel's buffers")
            assert application.sent < 16 * 1024 * KIB
            await trio.aclose_forcefully(stream)
            await application.ended.wait()

    async def test_http2_client_grants_no_credit(self, application):
        """An application is held at the window of its own request of HTTP/2; the next request is answered."""
        async with serving(application) as listener:
            peer = await Http2Peer.connect(listener.port)
            peer.h2.increment_flow_control_window(1024 * KIB)
            number = await peer.request("/flood")
            with trio.fail_after(WAIT):
                await application.started.wait()
            for _ in range(5):
                assert await peer.body(await peer.request("/hello")) == b"hello"
            print(f"HTTP/2: {application.sent} bytes were taken from the application, the window is 65535")
            assert application.sent <= 65535 + 2 * 32 * KIB
            peer.h2.reset_stream(number)
            await peer.flush()
            with trio.fail_after(WAIT):
                await application.ended.wait()
            await trio.aclose_forcefully(peer.stream)

    async def test_http2_application_does_not_read(self, application):
        """It stops its own client's request at the window; other requests of the connection are answered meanwhile."""
        body = bytes(300 * KIB)
        async with serving(application) as listener:
            peer = await Http2Peer.connect(listener.port)
            stuck = await peer.request("/unread", body=body)
            sent = await peer.send_body(stuck, body)
            with trio.fail_after(WAIT):
                await application.started.wait()
            print(f"HTTP/2: {sent} of {len(body)} bytes were taken from the client")
            assert sent == 65535
            for _ in range(20):
                assert await peer.body(await peer.request("/hello")) == b"hello"
            assert await peer.send_body(stuck, body[sent:]) == 0
            application.resume.set()
            while sent < len(body):
                peer.events = [e for e in peer.events if not isinstance(e, h2.events.WindowUpdated)]
                await peer.wait(h2.events.WindowUpdated, stuck)
                sent += await peer.send_body(stuck, body[sent:])
            assert await peer.body(stuck) == b"%d" % len(body)
            await trio.aclose_forcefully(peer.stream)

    async def test_http2_many_that_are_not_read(self, application):
        """As many uploads as the connection's window holds may be stuck before the next one is."""
        limits = attrs.evolve(Limits(), connection_window=4 * 65535)
        async with serving(application, limits=limits) as listener:
            peer = await Http2Peer.connect(listener.port)
            await peer.wait(h2.events.WindowUpdated)
            sent = [await peer.send_body(await peer.request("/unread", body=b""), bytes(100 * KIB)) for _ in range(5)]
            assert sent == [65535, 65535, 65535, 65535, 0]
            assert await peer.body(await peer.request("/hello")) == b"hello"
            for number in (1, 3):
                peer.h2.reset_stream(number)
            await peer.flush()
            # What the application of a reset request did not read is given back.
            peer.events.clear()
            await peer.wait(h2.events.WindowUpdated)
            assert await peer.send_body(9, bytes(10 * KIB)) == 10 * KIB
            await trio.aclose_forcefully(peer.stream)

    async def test_http2_late_body(self, application):
        """A body that goes on after the answer is dropped and credited; the connection goes on."""
        async with serving(application) as listener:
            peer = await Http2Peer.connect(listener.port)
            for _ in range(5):
                number = await peer.request("/early", body=b"", end=False)
                assert await peer.body(number) == b"hello"
                await peer.send_body(number, bytes(40 * KIB))
            assert await peer.body(await peer.request("/hello")) == b"hello"
            await trio.aclose_forcefully(peer.stream)

    async def test_slow_application_elsewhere(self, application):
        """A request that hangs over one version of HTTP holds up none over another."""
        async with serving(application) as listener, connect_http3(listener.port) as peer:
            stream = await open_tls(listener.port)
            await stream.send_all(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
            hung = peer.request("/unread", method="POST", body=bytes(1000), end=False)
            await application.started.wait()
            assert await peer.answer(peer.request("/hello")) == (200, b"hello")
            assert "hello" in await curl(f"https://localhost:{listener.port}/hello")
            assert peer.headers_of(hung) is None
            await trio.aclose_forcefully(stream)
            application.resume.set()


class TestSlowClients:
    """Clients that begin and do not go on."""

    @pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"G", b"GET / HTTP/1.1\r\nx: y\r\n"])
    async def test_no_handshake(self, application, start):
        """Who completes neither a handshake nor a request within `handshake_timeout` is cut off."""
        limits = attrs.evolve(Limits(), handshake_timeout=0.1)
        async with serving(application, limits=limits) as listener:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
            async with stream:
                if start:
                    await stream.send_all(start)
                await _read_to_the_end(stream)

    async def test_dripping_head(self, application):
        """Who sends a request's head byte by byte is cut off, however steadily the bytes come."""
        config = Config.from_mapping(keep_alive_timeout=0.1)
        async with serving(application, config=config) as listener:
            stream = await open_tls(listener.port)
            await stream.send_all(b"GET /hello HTTP/1.1\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drip, stream)
                await _read_to_the_end(stream)
                nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)
            assert not application.ended.is_set()

    async def test_too_many(self, application):
        """Past `max_connections` a new connection is closed at once; when one ends, there is room again."""
        limits = attrs.evolve(Limits(), max_connections=2)
        async with serving(application, limits=limits) as listener:
            kept = [await open_tls(listener.port) for _ in range(2)]
            third = await trio.open_tcp_stream("127.0.0.1", listener.port)
            await _read_to_the_end(third)
            await third.aclose()
            await kept[0].send_all(b"GET /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert b"hello" in await read_all(kept[0])
            await kept[0].aclose()
            assert "hello" in await curl(f"https://localhost:{listener.port}/hello")
            await trio.aclose_forcefully(kept[1])


async def _drip(stream):
    while True:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"x: y\r\n")
        await trio.sleep(0.01)


async def _read_to_the_end(stream):
    with trio.fail_after(WAIT):
        try:
            while await stream.receive_some(1024):
                pass
        except trio.BrokenResourceError:
            return


async def test_http2_trailers(application):
    """Trailers end an answer of HTTP/2, and the next request is answered."""
    async with serving(application) as listener:
        peer = await Http2Peer.connect(listener.port)
        number = await peer.request("/trailers", headers=[("te", "trailers")])
        assert await peer.body(number) == b"x"
        assert (b"x-sum", b"1") in (await peer.wait(h2.events.TrailersReceived, number)).headers
        with trio.fail_after(WAIT):
            await application.ended.wait()
        assert await peer.body(await peer.request("/hello")) == b"hello"
        await trio.aclose_forcefully(peer.stream)


async def test_keep_alive(application):
    """A connection of HTTP/1.1 serves one request after the other."""
    async with serving(application, certificate=CERTIFICATE) as listener:
        stream = await open_tls(listener.port)
        for _ in range(3):
            await stream.send_all(REQUEST % b"/hello")
            assert (await read_until(stream, b"\r\n\r\nhello")).startswith(b"HTTP/1.1 200 ")
        await trio.aclose_forcefully(stream)
