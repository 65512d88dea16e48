"""WebSockets of an application, over TCP and over HTTP/3's CONNECT."""

from __future__ import annotations

import pytest
import trio
import wsproto
import wsproto.connection
import wsproto.events
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from moqt_trio.limits import KIB
from tests.http.serving import WAIT, open_tls, serving
from tests.peers.aioquic_http3 import connect_http3

VERSION_13 = ((b"sec-websocket-version", b"13"),)


class Rooms:
    """A Starlette application with a few WebSockets, and a diary."""

    def __init__(self):
        self.diary = []
        self.started = trio.Event()
        self.resume = trio.Event()
        self.ended = trio.Event()
        routes = [
            WebSocketRoute(f"/{name}", getattr(self, name)) for name in ("echo", "refuse", "unread", "fail", "bye")
        ]
        self.app = Starlette(routes=routes)

    async def echo(self, websocket):
        await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
        self.diary.append((websocket.scope["http_version"], websocket.url.scheme))
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        except WebSocketDisconnect:
            pass
        self.diary.append("disconnect")
        self.ended.set()

    async def refuse(self, websocket):
        await websocket.close()

    async def unread(self, websocket):
        await websocket.accept()
        self.started.set()
        await self.resume.wait()
        size = 0
        while size < 64:
            size += len(await websocket.receive_bytes()) // KIB
        await websocket.send_text(str(size))

    async def fail(self, websocket):
        await websocket.accept()
        raise ValueError("boom")

    async def bye(self, websocket):
        await websocket.accept()
        await websocket.close(4000, "enough")


class Client:
    """WebSocket frames by wsproto, independent of the transport."""

    def __init__(self, carrier):
        self.frames = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
        self.carrier = carrier

    async def send(self, event):
        await self.carrier.send(self.frames.send(event))

    async def receive(self):
        """Return the next whole message, or the close frame."""
        parts = []
        with trio.fail_after(WAIT):
            while True:
                for event in self.frames.events():
                    if isinstance(event, wsproto.events.CloseConnection):
                        return event
                    parts.append(event.data)
                    if event.message_finished:
                        return parts[0][:0].join(parts)
                self.frames.receive_data(await self.carrier.receive())


class OverHttp3:
    """The stream of a CONNECT request, by aioquic."""

    def __init__(self, peer, path, headers=VERSION_13):
        self.peer = peer
        self.stream = peer.connect(path, protocol="websocket", headers=headers)
        self.taken = 0

    async def send(self, data, *, end=False):
        self.peer.h3.send_data(self.stream, data, end)
        self.peer.flush()

    async def receive(self):
        body = await self.peer.wait(lambda: self.peer.body_of(self.stream)[self.taken :])
        self.taken += len(body)
        return body


class OverTcp:
    """An upgraded connection of HTTP/1.1."""

    def __init__(self, stream, rest):
        self.stream = stream
        self.rest = rest

    @classmethod
    async def connect(cls, port, path):
        stream = await open_tls(port)
        request = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        await stream.send_all(request.send(wsproto.events.Request(host="localhost", target=path)))
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(4096)
        head, _, rest = data.partition(b"\r\n\r\n")
        return cls(stream, rest), int(head.split()[1])

    async def send(self, data):
        await self.stream.send_all(data)

    async def receive(self):
        rest, self.rest = self.rest, b""
        return rest or await self.stream.receive_some(65536)


@pytest.fixture
def rooms():
    return Rooms()


async def converse(client):
    """Send text and bytes of several sizes, and check that each comes back."""
    for text in ("", "hello", "日本 京都", "x" * 70_000):
        await client.send(wsproto.events.TextMessage(data=text))
        assert await client.receive() == text
    data = bytes(range(256)) * 1000
    await client.send(wsproto.events.BytesMessage(data=data))
    assert await client.receive() == data


async def test_over_tcp(rooms):
    """A WebSocket over HTTP/1.1 carries text and bytes both ways, and ends with a close of both sides."""
    async with serving(rooms.app) as listener:
        carrier, status = await OverTcp.connect(listener.port, "/echo")
        assert status == 101
        client = Client(carrier)
        await converse(client)
        await client.send(wsproto.events.CloseConnection(code=1000))
        assert (await client.receive()).code == 1000
        await rooms.ended.wait()
        await trio.aclose_forcefully(carrier.stream)
    assert rooms.diary == [("1.1", "wss"), "disconnect"]


async def test_over_http3(rooms):
    """A WebSocket over HTTP/3 carries the same, beside other requests of its connection."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/echo")
        assert await peer.status(carrier.stream) == 200
        client = Client(carrier)
        await converse(client)
        assert (await peer.answer(peer.request("/nothing")))[0] == 404
        await client.send(wsproto.events.CloseConnection(code=1000))
        assert (await client.receive()).code == 1000
        with trio.fail_after(WAIT):
            await rooms.ended.wait()
        await peer.wait(lambda: peer.ended(carrier.stream))
    assert rooms.diary == [("3", "wss"), "disconnect"]


async def test_subprotocol(rooms):
    """The subprotocol that the application chose is in the answer."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/echo", (*VERSION_13, (b"sec-websocket-protocol", b"chat, other")))
        await peer.status(carrier.stream)
        assert peer.headers_of(carrier.stream)[b"sec-websocket-protocol"] == b"chat"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/refuse", VERSION_13, 403), ("/echo", (), 400), ("/nowhere", VERSION_13, 403)],
    ids=["refused", "no version", "no route"],
)
async def test_refused(rooms, path, headers, status):
    """A refusal is a status, without a field that HTTP/3 forbids."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, path, headers)
        assert await peer.status(carrier.stream) == status
        assert b"connection" not in peer.headers_of(carrier.stream)
        assert peer.closed_code is None


async def test_application_closes(rooms):
    """The application's close comes with its code and reason, and ends the stream."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/bye")
        close = await Client(carrier).receive()
        assert (close.code, close.reason) == (4000, "enough")
        await peer.wait(lambda: peer.ended(carrier.stream))


async def test_application_fails(rooms, caplog):
    """An application that fails closes its WebSocket with 1011; the connection goes on."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/fail")
        assert (await Client(carrier).receive()).code == 1011
        assert (await peer.answer(peer.request("/nothing")))[0] == 404
    assert "boom" in caplog.text


@pytest.mark.parametrize("how", ["reset", "fin", "lost"])
async def test_client_goes(rooms, how):
    """A client that goes without a close frame is a disconnect for the application."""
    async with serving(rooms.app) as listener:
        async with connect_http3(listener.port) as peer:
            carrier = OverHttp3(peer, "/echo")
            client = Client(carrier)
            await client.send(wsproto.events.TextMessage(data="hello"))
            assert await client.receive() == "hello"
            if how == "reset":
                peer.quic.reset_stream(carrier.stream, 0x10C)
                peer.flush()
            elif how == "fin":
                await carrier.send(b"", end=True)
            if how != "lost":
                with trio.fail_after(WAIT):
                    await rooms.ended.wait()
                assert (await peer.answer(peer.request("/nothing")))[0] == 404
        with trio.fail_after(WAIT):
            await rooms.ended.wait()
    assert rooms.diary[-1] == "disconnect"


async def test_application_does_not_read(rooms):
    """Its client is stopped at the stream's window and a few messages; then the application gets all of it."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/unread")
        client = Client(carrier)
        for _ in range(64):
            await client.send(wsproto.events.BytesMessage(data=bytes(16 * KIB)))
        with trio.fail_after(WAIT):
            await rooms.started.wait()
        for _ in range(10):
            assert (await peer.answer(peer.request("/nothing")))[0] == 404
        taken = peer.quic._streams[carrier.stream].sender._buffer_start
        print(f"{taken} of {64 * 16 * KIB} bytes were taken from the client")
        assert taken < 64 * 16 * KIB
        rooms.resume.set()
        assert await client.receive() == "64"


async def test_pings(rooms):
    """With a ping interval in the settings the server pings."""
    config = Config.from_mapping(websocket_ping_interval=0.01)
    async with serving(rooms.app, config=config) as listener, connect_http3(listener.port) as peer:
        carrier = OverHttp3(peer, "/echo")
        await peer.wait(lambda: b"\x89\x00" in peer.body_of(carrier.stream))


async def test_no_application():
    """Without an application, and for other protocols, CONNECT is 501."""
    async with serving(None) as listener, connect_http3(listener.port) as peer:
        assert await peer.status(OverHttp3(peer, "/echo").stream) == 501


async def test_other_protocols(rooms):
    """CONNECT for another protocol, or for none, is 501."""
    async with serving(rooms.app) as listener, connect_http3(listener.port) as peer:
        assert await peer.status(peer.connect("/echo", protocol="connect-udp")) == 501
        assert await peer.status(peer.request("/echo", method="CONNECT", end=False)) == 501
