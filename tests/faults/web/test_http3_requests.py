"""Faults of HTTP/3 requests that a stock listener dies of, from an independent client over real QUIC."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from hypercorn.config import Config

from moqt_trio.limits import KIB, Limits
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.webtransport.serving import serving

ILLEGAL = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


async def respond(send, status=200, body=b"", headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


class Application:
    """An ASGI application with a path for each fault, and a record of the events that it received."""

    def __init__(self):
        self.diary = []
        self.started = trio.Event()
        self.resume = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, scope, receive, send):
        handler = getattr(self, scope["path"].strip("/") or "hello")
        self.scope = scope
        try:
            await handler(receive, send)
        finally:
            if scope["path"] != "/hello":
                self.ended.set()

    async def hello(self, receive, send):
        await respond(send, body=b"hello")

    async def stalled(self, receive, send):
        """Never reads its body until it may."""
        self.started.set()
        await self.resume.wait()
        await self.count(receive, send)

    async def count(self, receive, send):
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        await respond(send, body=b"%d" % size)

    async def wait(self, receive, send):
        """Wait for the client to go away."""
        self.started.set()
        while (message := await receive())["type"] != "http.disconnect":
            self.diary.append(message["type"])
        self.diary.append(message["type"])
        self.diary.append((await receive())["type"])

    async def flood(self, receive, send):
        """Send without end, and count what was taken."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.sent = 0
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(64 * KIB), "more_body": True})
                self.sent += 64 * KIB
                self.started.set()
        except OSError:
            self.diary.append("OSError")
            raise

    async def big(self, receive, send):
        await respond(send, body=bytes(1024 * KIB))

    async def fail(self, receive, send):
        raise ValueError("boom")

    async def fail_late(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("boom")

    async def rude(self, receive, send):
        await respond(send, body=b"x", headers=[(b"Connection", b"close"), (b"X-Upper", b"1"), (b"Upgrade", b"h2")])

    async def trailers(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def hints(self, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
        await send({"type": "http.response.push", "path": "/a.css", "headers": []})
        await respond(send, body=b"x")


@pytest.fixture
def application():
    return Application()


async def test_data_after_the_answer(application):
    """DATA that comes after the answer is dropped, even from a client that ignores STOP_SENDING."""
    limits = attrs.evolve(Limits(), connection_window=64 * KIB, stream_window=64 * KIB)
    async with serving(app=application, limits=limits) as served, connect_http3(served.port) as peer:
        peer.ignore_stop_sending()
        for _ in range(3):
            stream = peer.request("/hello", method="POST", body=b"first", end=False)
            assert await peer.answer(stream) == (200, b"hello")
            for _ in range(20):
                peer.h3.send_data(stream, bytes(10_000), end_stream=False)
                peer.flush()
            peer.h3.send_data(stream, b"last", end_stream=True)
            peer.flush()
        assert await peer.answer(peer.request("/hello")) == (200, b"hello")
        assert peer.closed_code is None


async def test_late_data_returns_its_credit(application):
    """Late data beyond the connection's window passes, as what is dropped gives its credit back."""
    limits = attrs.evolve(Limits(), connection_window=64 * KIB, stream_window=64 * KIB)
    async with serving(app=application, limits=limits) as served, connect_http3(served.port) as peer:
        for _ in range(8):
            stream = peer.request("/hello", method="POST", body=bytes(40 * KIB), end=False)
            assert await peer.answer(stream) == (200, b"hello")
            assert await peer.wait(lambda stream=stream: peer.stop_code(stream)) == 0x100
        body = bytes(200 * KIB)
        assert await peer.answer(peer.request("/count", method="POST", body=body)) == (200, b"%d" % len(body))


async def test_an_application_that_does_not_read(application):
    """Such an application stops its own client at the window; every other request is served, then it gets all of it."""
    limits = attrs.evolve(Limits(), stream_window=64 * KIB)
    body = bytes(1024 * KIB)
    async with (
        serving(app=application, limits=limits) as served,
        connect_http3(served.port) as peer,
        connect_http3(served.port) as other,
    ):
        stuck = peer.request("/stalled", method="POST", body=body)
        await application.started.wait()
        for _ in range(20):
            assert await peer.answer(peer.request("/hello")) == (200, b"hello")
            assert await other.answer(other.request("/hello")) == (200, b"hello")
        async with connect_http3(served.port) as late:
            assert await late.answer(late.request("/hello")) == (200, b"hello")
        sender = peer.quic._streams[stuck].sender
        taken = sender._buffer_start
        print(f"window {limits.stream_window}, taken from the client {taken} of {len(body)}")
        assert taken <= limits.stream_window
        application.resume.set()
        assert await peer.answer(stuck) == (200, b"%d" % len(body))


async def test_a_client_that_does_not_read(application):
    """The answer to a client that reads nothing waits: the application is held at the send buffer."""
    limits = Limits()
    async with (
        serving(app=application, limits=limits) as served,
        connect_http3(served.port, max_stream_data=64 * KIB) as peer,
        connect_http3(served.port) as other,
    ):
        # aioquic raises its window as data arrives; this client does not.
        peer.quic._write_stream_limits = lambda *args, **kwargs: None
        peer.request("/flood")
        await application.started.wait()
        for _ in range(20):
            assert await other.answer(other.request("/hello")) == (200, b"hello")
        print(f"taken from the application {application.sent}")
        assert application.sent <= limits.send_high + 64 * KIB + 2 * 64 * KIB


async def test_a_large_answer_arrives_whole(application):
    """An answer of a megabyte in one message passes through the send buffer piece by piece."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        status, body = await peer.answer(peer.request("/big"))
    assert (status, len(body)) == (200, 1024 * KIB)


async def test_reset_is_a_disconnect(application):
    """The application receives http.disconnect, each time it asks, when a client resets its request."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        stream = peer.request("/wait", end=False)
        await application.started.wait()
        peer.quic.reset_stream(stream, 0x10C)
        peer.flush()
        await application.ended.wait()
        assert application.diary == ["http.disconnect", "http.disconnect"]
        assert await peer.answer(peer.request("/hello")) == (200, b"hello")


async def test_lost_connection_is_a_disconnect(application):
    """The application receives http.disconnect when a client's connection ends."""
    async with serving(app=application) as served:
        async with connect_http3(served.port) as peer:
            peer.request("/wait")
            await application.started.wait()
        await served.wait_ended()
    assert application.diary[-2:] == ["http.disconnect", "http.disconnect"]


async def test_sending_to_a_disconnected_client(application, caplog):
    """An application that streams to a client which stops listening gets an OSError, and nothing is logged."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        stream = peer.request("/flood")
        await application.started.wait()
        peer.quic.stop_stream(stream, 0x10C)
        peer.flush()
        await application.ended.wait()
        assert application.diary == ["OSError"]
        assert await peer.answer(peer.request("/hello")) == (200, b"hello")
    assert not caplog.records


async def test_failing_applications(application, capfd):
    """An application that fails is 500; one that fails halfway has its answer reset. The connection lives on."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        assert await peer.answer(peer.request("/fail")) == (500, b"")
        half = peer.request("/fail_late")
        assert await peer.wait(lambda: peer.reset_code(half)) == 0x102
        assert not peer.ended(half)
        assert await peer.answer(peer.request("/hello")) == (200, b"hello")
    assert "boom" in capfd.readouterr().err


async def test_no_field_of_a_connection(application):
    """No answer, not even an error, carries a field that HTTP/3 forbids; names are in lower case."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        for path in ("/rude", "/fail", "/hello"):
            stream = peer.request(path)
            await peer.answer(stream)
            headers = peer.headers_of(stream)
            assert not ILLEGAL & set(headers)
            assert all(name == name.lower() for name in headers)
        refused = peer.connect("/nowhere")
        await peer.status(refused)
        assert not ILLEGAL & set(peer.headers_of(refused))


async def test_trailers(application):
    """Trailers end an answer, without an illegal frame after them."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        stream = peer.request("/trailers", headers=((b"te", b"trailers"),))
        await peer.answer(stream)
        sections = [dict(e.headers) for e in peer.events if hasattr(e, "headers") and e.stream_id == stream]
        assert sections[1] == {b"x-sum": b"1"}
        assert peer.closed_code is None


async def test_hints_and_pushes(application):
    """Early hints precede the answer, a push is left out."""
    async with serving(app=application) as served, connect_http3(served.port) as peer:
        stream = peer.request("/hints")
        await peer.answer(stream)
        sections = [dict(e.headers) for e in peer.events if hasattr(e, "headers") and e.stream_id == stream]
        assert [section[b":status"] for section in sections] == [b"103", b"200"]


async def test_scope(application):
    """The scope says what was asked, over HTTP/3, and by whom."""
    config = Config()
    config.include_server_header = False
    config.alt_svc_headers = ['h3=":4443"']
    async with serving(app=application, config=config) as served, connect_http3(served.port) as peer:
        stream = peer.request("/hello?a=1", headers=((b"x-y", b"z"),))
        await peer.answer(stream)
        assert peer.headers_of(stream)[b"alt-svc"] == b'h3=":4443"'
        assert b"server" not in peer.headers_of(stream)
    scope = application.scope
    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("3", "https", "GET")
    assert (scope["path"], scope["query_string"]) == ("/hello", b"a=1")
    assert (b"x-y", b"z") in scope["headers"]
    assert scope["client"][0] == "127.0.0.1"


async def test_another_host(application):
    """A request for a host that is not served is 421."""
    config = Config()
    config.server_names = ["example.com"]
    async with serving(app=application, config=config) as served, connect_http3(served.port) as peer:
        assert (await peer.answer(peer.request("/hello", authority="evil.example")))[0] == 421
        assert (await peer.answer(peer.request("/hello", authority="example.com")))[0] == 200


async def test_timers_survive_a_flush_by_timer(application):
    """Loss recovery and the idle timeout still work after a flush that a timer caused."""
    limits = attrs.evolve(Limits(), idle_timeout=1.0)
    async with serving(app=application, limits=limits) as served, connect_http3(served.port) as peer:
        # Answers that are lost can only come again by the server's loss timer.
        for _ in range(2):
            received = peer.quic.receive_datagram
            stream = peer.request("/hello")
            dropped = trio.Event()

            def drop(*args, dropped=dropped):
                dropped.set()

            peer.quic.receive_datagram = drop
            await dropped.wait()
            peer.quic.receive_datagram = received
            assert await peer.answer(stream) == (200, b"hello")
        # A client that falls silent is given up by the server's idle timer, without a packet from anybody.
        peer.quic.receive_datagram = lambda *args: None
        peer.quic.handle_timer = lambda *args, **kwargs: None
        peer.quic.get_timer = lambda: None
        peer.flush = lambda: None
        with trio.fail_after(5):
            await served.wait_ended()


async def test_idle_connections_cost_nothing(application):
    """A server with idle connections does not poll: within a while its tasks are not run at all."""
    async with serving(app=application) as served, trio.open_nursery() as nursery:
        ready = trio.Semaphore(0)

        async def idle():
            async with connect_http3(served.port) as peer:
                await peer.answer(peer.request("/hello"))
                ready.release()
                await trio.sleep_forever()

        for _ in range(5):
            nursery.start_soon(idle)
        for _ in range(5):
            await ready.acquire()
        await trio.sleep(0.3)
        runs = StepCounter()
        trio.lowlevel.add_instrument(runs)
        await trio.sleep(0.3)
        trio.lowlevel.remove_instrument(runs)
        print(f"task steps in 0.3 s: {runs.steps}")
        assert runs.steps < 20
        nursery.cancel_scope.cancel()


class StepCounter(trio.abc.Instrument):
    """Counts how often a task is run."""

    def __init__(self):
        self.steps = 0

    def before_task_step(self, task):
        self.steps += 1
