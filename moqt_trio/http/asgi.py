"""Ordinary HTTP/3 requests and WebSockets for an ASGI application, by hypercorn's parts.

Hypercorn's `HTTPStream` and `WSStream` turn ASGI messages into answers, and its `Config` says how. Its HTTP/3 listener
and its `H3Protocol` are not used: they await the application while reading, which stalls every connection, and fail on
data that comes after the answer. `tests/transport/webtransport/test_contract.py` fails when what is used moves.

Knows nothing of WebTransport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.events import Request
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from hypercorn.utils import filter_pseudo_headers, valid_server_name

from ..transport.http3.fields import field
from .asgi_request import AsgiRequest
from .asgi_websocket import AsgiWebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from ..transport.http3.exchange import Exchange
    from ..transport.http3.fields import Headers

AsgiApplication = ASGIFramework
"""An ASGI application."""
HttpConfig = Config
"""Hypercorn's settings: answer headers, server names, root path, logging."""


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

    def start(self, exchange: Exchange, headers: Headers, fin: bool, *, websocket: bool = False) -> None:
        """Starts a request whose headers are complete; a WebSocket is a CONNECT for it (RFC 9220)."""
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
        kind = AsgiWebSocket if websocket else AsgiRequest
        self._nursery.start_soon(kind(self, exchange, fin).run, request)
