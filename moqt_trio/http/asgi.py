"""Ordinary HTTP/3 requests and WebSockets for an ASGI application, by hypercorn's parts.

Hypercorn's `HTTPStream` and `WSStream` turn ASGI messages into answers, and its `Config` says how. Its HTTP/3 listener
and its `H3Protocol` are not used: they await the application while reading, which stalls every connection, and fail on
data that comes after the answer. `tests/transport/webtransport/test_contract.py` fails when what is used moves.

Theory of operation. `AsgiServer.start` is called by the task that reads the socket, when the headers of a request are
complete. It makes an `AsgiExchange`, which owns the HTTP/3 exchange from then on, and returns its `run`, which the
caller starts as a task. The body waits in the exchange, and its credit returns as the application reads: an application
that does not read holds up no other request. What the application sends waits for room in the stream.

Spec: RFC 9114; RFC 9220 and RFC 8441 for WebSockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    EndData,
    InformationalResponse,
    Request,
    Response,
    StreamClosed,
    Trailers,
)
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import filter_pseudo_headers, valid_server_name

from ..errors import SessionClosed, StreamReset
from ..loggers import Logger
from ..transport.http3.constants import H3Error
from ..transport.http3.fields import field, join_cookies
from .disconnect import ClientDisconnected, DisconnectWrapper
from .messages import MessageQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.protocol.events import Event
    from hypercorn.typing import Scope

    from ..errors import MoqtError
    from ..transport.http3.exchange import Exchange
    from ..transport.http3.fields import Headers

AsgiApplication = ASGIFramework
"""An ASGI application."""
HttpConfig = Config
"""Hypercorn's settings: answer headers, server names, root path, logging."""

logger = Logger(__name__)

_PIECE = 64 * 1024
"""Bytes of an answer that are written at once: below `Limits.send_high`, so that a slow client makes the application
wait after each."""

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Illegal in HTTP/3 (RFC 9114, section 4.2). Hypercorn's own error answers carry one of them."""

_DISCONNECTS = (StreamReset, SessionClosed, trio.ClosedResourceError)
"""What a stream raises once the client refused the answer or left, or this side ended the exchange."""


class AsgiServer:
    """Runs one application for the requests of one HTTP/3 connection.

    When a client disconnects, the application receives `http.disconnect`, and its next `send` raises an OSError.

    Args:
        app: The ASGI application.
        config: Hypercorn's settings; None takes the defaults.
        client: The peer's address and port.
        state: The lifespan state, copied into each request's scope.
        server: The address and port that the connection came to.

    Attributes:
        app: The application in hypercorn's wrapper.
        config: The settings.
        context: What hypercorn shares between the requests of a worker.
        client: As above.
        server: As above.
    """

    def __init__(
        self,
        app: AsgiApplication,
        config: Config | None,
        client: tuple[str, int] | None,
        state: Mapping[str, Any] | None = None,
        server: tuple[str, int] | None = None,
    ) -> None:
        self.app = DisconnectWrapper(app)
        self.config = config if config is not None else Config()
        self.context = WorkerContext(None)
        self.client = client
        self.server = server
        self._state = ConnectionState(dict(state or {}))

    def start(self, exchange: Exchange, headers: Headers, fin: bool) -> Callable[[], Awaitable[None]] | None:
        """Called with each request whose headers are complete; a WebSocket is a CONNECT (RFC 9220).

        Returns:
            What runs the application for it; None when the request was refused.
        """
        method, path = field(headers, b":method"), field(headers, b":path")
        if method is None or not method.isascii() or not path or not path.isascii():
            exchange.respond(400)
            return None
        request = Request(
            stream_id=exchange.stream_id,
            headers=join_cookies(filter_pseudo_headers(headers)),
            http_version="3",
            method=method.decode("ascii").upper(),
            raw_path=path,
            state=self._state,
        )
        if not valid_server_name(self.config, request):
            exchange.respond(421)
            return None
        kind = AsgiWebSocket if method == b"CONNECT" else AsgiRequest
        return kind(self, exchange, request, fin).run


class AsgiExchange:
    """The common part of requests and WebSockets: what arrives waits here, what is sent waits for room.

    It owns its exchange, and is the task group of hypercorn's stream.
    """

    def __init__(self, server: AsgiServer, exchange: Exchange, request: Request, fin: bool) -> None:
        self._exchange = exchange
        self._request = request
        self._config = server.config
        self._body = bytearray()
        self._body_ended = fin
        self._disconnected = False
        self._arrival = trio.Event()
        exchange.owner = self

    def _parts(self, server: AsgiServer) -> tuple[Any, ...]:
        """Return the arguments of hypercorn's streams; this exchange stands where they expect a task group."""
        with_tls = True
        stream_id = self._exchange.stream_id
        return (
            server.app,
            server.config,
            server.context,
            self,
            with_tls,
            server.client,
            server.server,
            self._send,
            stream_id,
        )

    # -- from the exchange ---------------------------------------------------------------------------------

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        """Never called: a request has one header section, and it was read."""

    def headers_too_large(self, exchange: Exchange) -> None:
        exchange.abort(H3Error.EXCESSIVE_LOAD)
        self._disconnect()

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        if self._disconnected:
            exchange.consumed(len(data))
            return
        self._body += data
        self._body_ended = fin
        self._arrival.set()

    def exchange_ended(self, exchange: Exchange, error: MoqtError | None) -> None:
        if error is None:
            exchange.abort(H3Error.REQUEST_CANCELLED)
        self._disconnect()

    def _disconnect(self) -> None:
        self._disconnected = True
        self._arrival.set()

    def _take(self) -> bytes:
        data = bytes(self._body)
        self._body.clear()
        self._exchange.consumed(len(data))
        return data

    # -- from hypercorn's stream ---------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        # One message of the application's is several events; `DisconnectWrapper` has a checkpoint for it.
        exchange = self._exchange
        if isinstance(event, Body | Data):
            await self._send_body(event.data)
        elif isinstance(event, Response | InformationalResponse):
            exchange.send_headers(
                [
                    (b":status", b"%d" % event.status_code),
                    *_legal(event.headers),
                    *self._config.response_headers("h3"),
                ]
            )
        elif isinstance(event, Trailers):
            exchange.send_headers(_legal(event.headers))
        elif isinstance(event, EndBody | EndData):
            exchange.finish()
        elif isinstance(event, StreamClosed):
            await self._closed()

    async def _closed(self) -> None:
        # An incomplete response must not look like a complete one.
        if not self._exchange.send_ended:
            self._exchange.abort(H3Error.INTERNAL_ERROR)
        self._exchange.stop(H3Error.NO_ERROR)
        self._disconnect()

    async def _send_body(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            try:
                await self._exchange.wait_writable()
            except _DISCONNECTS as error:
                raise ClientDisconnected from error
            self._exchange.send_data(data[start : start + _PIECE])

    async def _run_app(
        self,
        app: ASGIWrapper,
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        try:
            await app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except Exception:
            await self._config.log.exception("Error in ASGI Framework")
        await send(None)


class AsgiRequest(AsgiExchange):
    """One request. Its body waits in the stream's window until the application reads it."""

    def __init__(self, server: AsgiServer, exchange: Exchange, request: Request, fin: bool) -> None:
        super().__init__(server, exchange, request, fin)
        self._end_received = False
        self._http = HTTPStream(*self._parts(server))

    async def run(self) -> None:
        """Run the application for this request until it returns."""
        try:
            await self._http.handle(self._request)
        except Exception:
            logger.exception("request %d failed", self._request.stream_id)
            self._exchange.abort(H3Error.INTERNAL_ERROR)

    def _disconnect(self) -> None:
        super()._disconnect()
        self._http.closed = True

    async def spawn_app(
        self,
        app: ASGIWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Run the application in this task; `HTTPStream` expects a task of its own and a queue to it."""
        await self._run_app(app, scope, self._receive, send)

    async def _receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        while True:
            if self._disconnected:
                return {"type": "http.disconnect"}
            if self._body or (self._body_ended and not self._end_received):
                self._end_received = self._body_ended
                return {"type": "http.request", "body": self._take(), "more_body": not self._end_received}
            self._arrival = trio.Event()
            await self._arrival.wait()


class AsgiWebSocket(AsgiExchange):
    """One WebSocket. Its frames wait in the stream's window while the application has enough messages to read."""

    def __init__(self, server: AsgiServer, exchange: Exchange, request: Request, fin: bool) -> None:
        super().__init__(server, exchange, request, fin)
        self._nursery: trio.Nursery
        self._websocket = WSStream(*self._parts(server))

    async def run(self) -> None:
        """Run the application for this WebSocket until it returns."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._websocket.handle(self._request)
                await self._feed()
        except Exception:
            logger.exception("WebSocket %d failed", self._request.stream_id)
            self._exchange.abort(H3Error.INTERNAL_ERROR)

    async def _feed(self) -> None:
        stream_id = self._exchange.stream_id
        while not self._disconnected:
            if self._body and self._websocket.handshake.accepted:
                # Taken first, credited as the application reads: handling waits while its queue is full.
                data = bytes(self._body)
                self._body.clear()
                await self._websocket.handle(Data(stream_id=stream_id, data=data))
                self._exchange.consumed(len(data))
            elif self._body_ended and not self._body:
                break
            else:
                self._arrival = trio.Event()
                await self._arrival.wait()
        await self._websocket.handle(StreamClosed(stream_id=stream_id))

    async def _send(self, event: Event) -> None:
        await super()._send(event)
        if isinstance(event, Response):
            # What the client sent before it was accepted has waited for this.
            self._arrival.set()

    async def _closed(self) -> None:
        # The WebSocket's own frames have said how it closed.
        self._exchange.finish()
        self._exchange.stop(H3Error.NO_ERROR)
        self._disconnect()

    async def spawn_app(
        self,
        app: ASGIWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application, and return a function that sends it messages."""
        queue = MessageQueue(config.max_app_queue_size)
        self._nursery.start_soon(self._run_app, app, scope, queue.receive, send)
        return queue.put

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a task of hypercorn: the one that sends pings."""
        self._nursery.start_soon(function, *arguments)


def _legal(headers: Headers) -> Headers:
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name not in _HOP_BY_HOP]
