"""One WebSocket over HTTP/3, for an ASGI application: hypercorn's `WSStream` on a CONNECT stream.

Spec: RFC 9220; RFC 8441.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.protocol.events import Data, Response, StreamClosed
from hypercorn.protocol.ws_stream import WSStream

from ..transport.http3.constants import H3Error
from .asgi_request import AsgiExchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.protocol.events import Event, Request
    from hypercorn.typing import Scope

    from ..transport.http3.exchange import Exchange
    from .asgi import AsgiServer

_logger = logging.getLogger(__name__)


class AsgiWebSocket(AsgiExchange):
    """One WebSocket. Its frames wait in the stream's window while the application has enough messages to read."""

    def __init__(self, server: AsgiServer, exchange: Exchange, fin: bool) -> None:
        super().__init__(server, exchange, fin)
        self._nursery: trio.Nursery
        self._websocket = WSStream(
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
        """Runs the application for this WebSocket until it returns."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._websocket.handle(request)
                await self._feed()
        except Exception:
            _logger.exception("WebSocket %d failed", request.stream_id)
            self._exchange.abort(H3Error.INTERNAL_ERROR)

    async def _feed(self) -> None:
        stream_id = self._exchange.stream_id
        while not self._gone:
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
            # What a client sent before it knew whether it is accepted has waited for this.
            self._arrival.set()

    async def _closed(self) -> None:
        # Whatever there was to say was said in WebSocket's own frames.
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
        """Starts the application, and returns what takes messages for it."""
        to_app, from_app = trio.open_memory_channel[Any](config.max_app_queue_size)
        self._nursery.start_soon(self._run_app, app, scope, from_app.receive, send)
        return to_app.send

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Starts a task of hypercorn's: the one that sends pings."""
        self._nursery.start_soon(function, *arguments)
