"""Ordinary HTTP/3 requests for an ASGI application, by hypercorn's parts.

The one file that touches hypercorn; `tests/transport/webtransport/test_contract.py` fails when what it uses moves.
Hypercorn's `HTTPStream` turns ASGI messages into answers, and its `Config` says how. Its HTTP/3 listener and its
`H3Protocol` are not used: they await the application while reading, which stalls every connection, and fail on data
that comes after the answer.

Knows nothing of WebTransport.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.events import (
    Body,
    EndBody,
    InformationalResponse,
    Request,
    Response,
    StreamClosed,
    Trailers,
)
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from hypercorn.utils import filter_pseudo_headers, valid_server_name

from .codes import H3Error
from .fields import field

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hypercorn.protocol.events import Event
    from hypercorn.typing import Scope

    from ...errors import MoqtError
    from .exchange import Exchange
    from .fields import Headers

AsgiApplication = ASGIFramework
"""An ASGI application."""
HttpConfig = Config
"""Hypercorn's settings: answer headers, server names, root path, logging."""

_logger = logging.getLogger(__name__)

_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Illegal in HTTP/3 (RFC 9114, section 4.2). Hypercorn's own error answers carry one of them."""


class _ClientGone(OSError):
    """The application sends to a client that no longer listens; ASGI asks for an OSError."""


class AsgiServer:
    """Runs one application for the requests of one HTTP/3 connection.

    Each request is a task of its own. Its body waits in the stream's window until the application reads it, so that
    an application that does not read holds up nobody else. The answer waits for room in the stream. A client that
    goes away is told to the application as `http.disconnect`, and as an OSError when it sends.

    Attributes:
        app: The ASGI application.
        config: Hypercorn's settings: answer headers, server names, root path, logging.
        context: What hypercorn shares between the requests of a worker.
        client: The peer's address and port.
        state: The lifespan state, copied into each request's scope.
    """

    def __init__(
        self,
        app: AsgiApplication,
        config: Config | None,
        nursery: trio.Nursery,
        client: tuple[str, int] | None,
        state: Mapping[str, Any] | None,
    ) -> None:
        self.app = ASGIWrapper(app)
        self.config = config if config is not None else Config()
        self.context = WorkerContext(None)
        self.client = client
        self._nursery = nursery
        self._state = dict(state or {})

    def start(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        """Starts a request whose headers are complete."""
        method, path = field(headers, b":method"), field(headers, b":path")
        if method is None or not method.isascii() or not path or not path.isascii():
            exchange.respond(400)
            return
        request = Request(
            stream_id=exchange.stream_id,
            headers=filter_pseudo_headers(headers),
            http_version="3",
            method=method.decode("ascii").upper(),
            raw_path=path,
            state=cast("Any", self._state),
        )
        if not valid_server_name(self.config, request):
            exchange.respond(421)
            return
        self._nursery.start_soon(AsgiRequest(self, exchange, fin).run, request)


class AsgiRequest:
    """One request: the owner of its exchange, and what `HTTPStream` takes for its task group."""

    def __init__(self, server: AsgiServer, exchange: Exchange, fin: bool) -> None:
        self._exchange = exchange
        self._config = server.config
        self._http = HTTPStream(
            cast("Any", server.app),
            server.config,
            cast("Any", server.context),
            cast("Any", self),
            True,
            server.client,
            None,
            self._send,
            exchange.stream_id,
        )
        self._body = bytearray()
        self._body_ended = fin
        self._end_told = False
        self._gone = False
        self._arrival = trio.Event()
        exchange.owner = self

    # -- from the exchange ---------------------------------------------------------------------------------

    def headers_received(self, exchange: Exchange, headers: Headers, fin: bool) -> None:
        """A request has one header section, and it was read."""

    def headers_too_large(self, exchange: Exchange) -> None:
        exchange.abort(H3Error.EXCESSIVE_LOAD)
        self._disconnect()

    def body_received(self, exchange: Exchange, data: bytes, fin: bool) -> None:
        if self._gone:
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
        self._gone = True
        self._http.closed = True
        self._arrival.set()

    # -- the application's side ----------------------------------------------------------------------------

    async def run(self, request: Request) -> None:
        """Runs the application for this request until it returns."""
        try:
            await self._http.handle(request)
        except Exception:
            _logger.exception("request %d failed", request.stream_id)
            self._exchange.abort(H3Error.INTERNAL_ERROR)

    async def spawn_app(
        self,
        app: ASGIWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Runs the application here and now, where `HTTPStream` expects a task and a queue that leads to it."""
        try:
            await app(scope, self._receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except Exception as error:
            if not _is_client_gone(error):
                await config.log.exception("Error in ASGI Framework")
        await send(None)

    async def _receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        while True:
            if self._gone:
                return {"type": "http.disconnect"}
            if self._body or (self._body_ended and not self._end_told):
                data = bytes(self._body)
                self._body.clear()
                self._end_told = self._body_ended
                self._exchange.consumed(len(data))
                return {"type": "http.request", "body": data, "more_body": not self._end_told}
            self._arrival = trio.Event()
            await self._arrival.wait()

    async def _send(self, event: Event) -> None:
        exchange = self._exchange
        await trio.lowlevel.checkpoint()
        if isinstance(event, Body):
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
        elif isinstance(event, EndBody):
            exchange.finish()
        elif isinstance(event, StreamClosed):
            # An application that failed halfway must not look as if it had answered whole.
            if not exchange.send_ended:
                exchange.abort(H3Error.INTERNAL_ERROR)
            exchange.stop(H3Error.NO_ERROR)
            self._disconnect()

    async def _send_body(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            try:
                await self._exchange.wait_writable()
            except Exception as error:
                raise _ClientGone("the client is gone") from error
            self._exchange.send_data(data[start : start + _PIECE])


def _legal(headers: Headers) -> Headers:
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name not in _HOP_BY_HOP]


def _is_client_gone(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_client_gone(inner) for inner in error.exceptions)
    return isinstance(error, _ClientGone)
