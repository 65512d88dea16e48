"""What ASGI 2.4 promises an application, over every version of HTTP: the scope, `send` and `receive` after the end."""

from __future__ import annotations

import os

import pytest
import trio
import wsproto.events
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.http.serving import WAIT, body_of, curl, fields_of, open_tls, pass_lifespan, serving
from tests.http.test_requests import Http2Peer
from tests.http.test_websocket import Client, OverHttp3, OverTcp
from tests.peers.aioquic_http3 import connect_http3

VERSIONS = ["1.1", "2", "3"]
COOKIES = ((b"cookie", b"session=abc"), (b"x-other", b"1"), (b"cookie", b"csrftoken=def"), (b"cookie", b"theme=dark"))
START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": bytes(1000), "more_body": True}
LAST = {"type": "http.response.body", "body": b"done"}


class Application:
    """Runs one function for each request or WebSocket, and keeps the scopes, what it returned and what it raised."""

    def __init__(self, function):
        self.function = function
        self.scopes = []
        self.result = None
        self.ended = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await pass_lifespan(receive, send)
            return
        self.scopes.append(scope)
        try:
            self.result = await self.function(receive, send)
        finally:
            self.ended.set()

    async def wait_result(self):
        with trio.fail_after(WAIT):
            await self.ended.wait()
        return self.result


async def answer(receive, send):
    await send(START)
    await send(LAST)


async def refused(send, *messages):
    """Return the type of what each message raised."""
    raised = []
    for message in messages:
        try:
            await send(message)
        except Exception as error:
            raised.append(isinstance(error, OSError))
        else:
            raised.append(None)
    return raised


async def request_and_leave(version, port, until, *, body=None):
    """Send a request, wait for an event, and end it without a wait for its answer."""
    if version == "3":
        async with connect_http3(port) as peer:
            number = peer.request("/", method="POST", body=body if body is not None else b"", end=body is None)
            await until.wait()
            peer.quic.reset_stream(number, 0x10C)
            peer.quic.stop_stream(number, 0x10C)
            peer.flush()
            await trio.sleep_forever()
    elif version == "2":
        peer = await Http2Peer.connect(port)
        await peer.request("/", end=False) if body is None else await peer.request("/", body=body, end=False)
        if body is not None:
            await peer.send_body(1, body)
        await until.wait()
        await trio.aclose_forcefully(peer.stream)
    else:
        stream = await open_tls(port)
        size = 10**9 if body is not None else 0
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        with trio.move_on_after(0.5):
            await stream.send_all(body or b"")
        await until.wait()
        await trio.aclose_forcefully(stream)


async def http3(listener, path="/", **options):
    async with connect_http3(listener.port) as peer:
        return await peer.answer(peer.request(path, **options))


@pytest.mark.parametrize("version", VERSIONS)
async def test_scope(version):
    """The scope names version 2.4, and the address and port that the request came to."""
    app = Application(answer)
    async with serving(app) as listener:
        if version == "3":
            await http3(listener)
        else:
            await curl(f"https://127.0.0.1:{listener.port}/", f"--http{version}")
        expected = ("127.0.0.1", listener.port)
    assert app.scopes[0]["http_version"] == version
    assert app.scopes[0]["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert tuple(app.scopes[0]["server"]) == expected


@pytest.mark.parametrize("version", VERSIONS)
async def test_answer_streamed_while_the_body_comes(version, tmp_path):
    """A streamed answer of Starlette leaves the request's body to the endpoint, which sends all of it back."""
    body = os.urandom(3_000_000)
    (tmp_path / "body").write_bytes(body)

    async def echo(request):
        return StreamingResponse(request.stream())

    async with serving(Starlette(routes=[Route("/", echo, methods=["POST"])])) as listener:
        if version == "3":
            status, got = await http3(listener, method="POST", body=body)
            assert status == 200
        else:
            sending = ("--data-binary", f"@{tmp_path / 'body'}", "--output", str(tmp_path / "answer"), "--no-include")
            await curl(f"https://localhost:{listener.port}/", f"--http{version}", *sending)
            got = (tmp_path / "answer").read_bytes()
    assert got == body


@pytest.mark.parametrize("messages", [(START, PIECE, LAST), (START, LAST)], ids=["streamed", "whole"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_send_after_disconnect(version, messages, caplog):
    """Every message to a client that has left raises an OSError, the start of the answer among them."""
    started = trio.Event()

    async def late(receive, send):
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        raised = await refused(send, *messages)
        return raised, (await receive())["type"]

    app = Application(late)
    async with serving(app) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(request_and_leave, version, listener.port, started)
        assert await app.wait_result() == ([True] * len(messages), "http.disconnect")
        nursery.cancel_scope.cancel()
    assert not caplog.records


@pytest.mark.parametrize("body", [None, bytes(4_000_000)], ids=["no body", "unread body"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_only_sending(version, body, caplog):
    """An application that only sends fails with an OSError once its client has left, whatever it has not read."""
    started = trio.Event()

    async def flood(receive, send):
        await send(START)
        started.set()
        try:
            while True:
                await send(PIECE)
                await trio.sleep(0.001)
        except OSError:
            return "OSError"

    app = Application(flood)
    async with serving(app) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: request_and_leave(version, listener.port, started, body=body))
        assert await app.wait_result() == "OSError"
        nursery.cancel_scope.cancel()
    assert not caplog.records


@pytest.mark.parametrize("version", VERSIONS)
async def test_after_the_answer(version):
    """After a complete answer `receive` says that the client is disconnected, and a further message is refused."""

    async def twice(receive, send):
        while (await receive())["more_body"]:
            pass
        await answer(receive, send)
        return (await receive())["type"], await refused(send, LAST)

    app = Application(twice)
    async with serving(app) as listener:
        if version == "3":
            assert await http3(listener) == (200, b"done")
        else:
            assert body_of(await curl(f"https://localhost:{listener.port}/", f"--http{version}")) == "done"
        # It is the application's mistake, not a client that left.
        assert await app.wait_result() == ("http.disconnect", [False])


@pytest.mark.parametrize("version", ["1.1", "3"])
async def test_websocket(version, caplog):
    """A WebSocket has version 2.4, too: messages to a client that has left raise an OSError."""

    async def talk(receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        assert (await receive())["type"] == "websocket.disconnect"
        return await refused(send, {"type": "websocket.send", "text": "late"}, {"type": "websocket.close"})

    app = Application(talk)
    async with serving(app) as listener:
        if version == "3":
            async with connect_http3(listener.port) as peer:
                assert await Client(OverHttp3(peer, "/")).receive() == "hello"
        else:
            carrier, status = await OverTcp.connect(listener.port, "/")
            assert status == 101
            assert await Client(carrier).receive() == "hello"
            await trio.aclose_forcefully(carrier.stream)
        assert await app.wait_result() == [True, True]
    assert app.scopes[0]["asgi"]["spec_version"] == "2.4"
    assert not caplog.records


async def test_websocket_closed_by_the_client():
    """A close frame of the client is a disconnect: what is sent after it raises an OSError."""

    async def talk(receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        return await refused(send, {"type": "websocket.send", "text": "late"})

    app = Application(talk)
    async with serving(app) as listener, connect_http3(listener.port) as peer:
        client = Client(OverHttp3(peer, "/"))
        await client.send(wsproto.events.CloseConnection(code=1000))
        assert await app.wait_result() == [True]


@pytest.mark.parametrize("version", ["2", "3"])
async def test_cookies(version):
    """Cookies that came in several fields reach the application in one; the other fields stay as they are."""
    app = Application(answer)
    async with serving(app) as listener:
        if version == "3":
            await http3(listener, headers=COOKIES)
        else:
            peer = await Http2Peer.connect(listener.port)
            await peer.body(await peer.request("/", headers=COOKIES))
            await trio.aclose_forcefully(peer.stream)
    headers = [line for line in app.scopes[0]["headers"] if line[0] in (b"cookie", b"x-other")]
    assert sorted(headers) == [(b"cookie", b"session=abc; csrftoken=def; theme=dark"), (b"x-other", b"1")]


async def _page(request):
    own = {} if request.url.path == "/" else {"Alt-Svc": 'h3=":443"; ma=60'}
    return PlainTextResponse("hello", headers=own)


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("configured", [[], ['h3=":8443"'], ['h3=":8443"', 'h2=":8443"']])
async def test_alt_svc(version, configured):
    """There is one Alt-Svc field: the application's if it has one, else the config's, else the listener's port."""
    config = Config()
    config.alt_svc_headers = configured
    async with serving(Starlette(routes=[Route("/", _page), Route("/own", _page)]), config=config) as listener:
        url = f"https://localhost:{listener.port}"
        default = await curl(f"{url}/", f"--http{version}")
        own = await curl(f"{url}/own", f"--http{version}")
        expected = ", ".join(configured) or f'h3=":{listener.port}"; ma=86400'
    assert fields_of(default, "alt-svc") == [expected]
    assert fields_of(own, "alt-svc") == ['h3=":443"; ma=60']
