"""One HTTP/3 request for an ASGI application: the exchange on one side, hypercorn's stream on the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio
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

from ..transport.http3.constants import H3Error
from .disconnect import ClientDisconnected, is_client_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.protocol.events import Event
    from hypercorn.typing import Scope

    from ..errors import MoqtError
    from ..transport.http3.exchange import Exchange
    from ..transport.http3.fields import Headers
    from .asgi import AsgiServer

_logger = logging.getLogger(__name__)

_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Illegal in HTTP/3 (RFC 9114, section 4.2). Hypercorn's own error answers carry one of them."""


class AsgiExchange:
    """The part that requests and WebSockets share: what arrives waits here, what is sent waits for room.

    It owns its exchange, and is what hypercorn's stream takes for its task group.
    """

    def __init__(self, server: AsgiServer, exchange: Exchange, fin: bool) -> None:
        self._exchange = exchange
        self._config = server.config
        self._body = bytearray()
        self._body_ended = fin
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
        self._arrival.set()

    def _take(self) -> bytes:
        data = bytes(self._body)
        self._body.clear()
        self._exchange.consumed(len(data))
        return data

    # -- from hypercorn's stream ---------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        exchange = self._exchange
        await trio.lowlevel.checkpoint()
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
        # An application that failed halfway must not look as if it had answered whole.
        if not self._exchange.send_ended:
            self._exchange.abort(H3Error.INTERNAL_ERROR)
        self._exchange.stop(H3Error.NO_ERROR)
        self._disconnect()

    async def _send_body(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            try:
                await self._exchange.wait_writable()
            except Exception as error:
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
        except Exception as error:
            if not is_client_gone(error):
                await self._config.log.exception("Error in ASGI Framework")
        await send(None)


class AsgiRequest(AsgiExchange):
    """One request. Its body waits in the stream's window until the application reads it."""

    def __init__(self, server: AsgiServer, exchange: Exchange, fin: bool) -> None:
        super().__init__(server, exchange, fin)
        self._end_told = False
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

    async def run(self, request: Request) -> None:
        """Runs the application for this request until it returns."""
        try:
            await self._http.handle(request)
        except Exception:
            _logger.exception("request %d failed", request.stream_id)
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
        """Runs the application here and now, where `HTTPStream` expects a task and a queue that leads to it."""
        await self._run_app(app, scope, self._receive, send)

    async def _receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        while True:
            if self._gone:
                return {"type": "http.disconnect"}
            if self._body or (self._body_ended and not self._end_told):
                self._end_told = self._body_ended
                return {"type": "http.request", "body": self._take(), "more_body": not self._end_told}
            self._arrival = trio.Event()
            await self._arrival.wait()


def _legal(headers: Headers) -> Headers:
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name not in _HOP_BY_HOP]
