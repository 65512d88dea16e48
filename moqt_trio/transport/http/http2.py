"""HTTP/2 where a slow application holds up its own request only.

Hypercorn awaits the application's queue in the loop that reads the connection, and grants the client new credit before
the application has read: one that does not read stops every request of its connection. Here what arrives waits in the
stream's window, and credit returns as the application reads. A body that goes on after the answer ended is dropped;
hypercorn fails on it with a KeyError. `tests/http/test_contract.py` fails when what is replaced here moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.task_group import _handle
from hypercorn.trio.tcp_server import TCPServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.trio.task_group import TaskGroup
    from hypercorn.typing import Scope

_DEFAULT_WINDOW = 65535
"""Bytes that a client may send on a connection before it gets credit (RFC 9113, section 6.9.2)."""


class HttpConnection(TCPServer):
    """Hypercorn's connection over TCP; with HTTP/2 its requests are independent of each other.

    Attributes:
        connection_window: Bytes that a client may have sent on all requests together that no application has read.
    """

    connection_window: int = _DEFAULT_WINDOW

    async def _read_data(self) -> None:
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            await _Requests(protocol, cast("TaskGroup", protocol.task_group)).install(self.connection_window)
        await super()._read_data()


class _Requests:
    """The requests of one connection, and the credit that is owed for each; stands in for hypercorn's task group."""

    def __init__(self, protocol: H2Protocol, tasks: TaskGroup) -> None:
        self._protocol = protocol
        self._tasks = tasks
        self._acknowledge = protocol.connection.acknowledge_received_data
        self._owed: dict[int, int] = {}

    async def install(self, window: int) -> None:
        protocol = self._protocol
        protocol.task_group = cast("Any", self)
        protocol.streams = _Streams(protocol.streams)
        protocol.connection.acknowledge_received_data = self._received  # type: ignore[method-assign]
        if window > _DEFAULT_WINDOW:
            protocol.connection.increment_flow_control_window(window - _DEFAULT_WINDOW)
            await protocol._flush()

    def _received(self, length: int, stream_id: int) -> None:
        if stream_id in self._owed:
            self._owed[stream_id] += length
        else:
            self._acknowledge(length, stream_id)

    async def pay(self, stream_id: int) -> None:
        """Grants the client as much as was read."""
        length = self._owed.get(stream_id, 0)
        if length and not self._protocol.closed:
            self._owed[stream_id] = 0
            self._acknowledge(length, stream_id)
            await self._protocol._flush()

    async def forget(self, stream_id: int) -> None:
        """A request is over: what its application did not read counts as read."""
        await self.pay(stream_id)
        self._owed.pop(stream_id, None)

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._tasks.spawn(function, *arguments)

    async def spawn_app(
        self, app: ASGIWrapper, config: Config, scope: Scope, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        if scope["type"] != "http":
            # The messages of a WebSocket are not the bytes of its frames: hypercorn's own bounded queue holds them.
            return cast("Any", await self._tasks.spawn_app(app, config, scope, send))
        stream_id: int = cast("Any", send).__self__.stream_id
        self._owed[stream_id] = 0
        body = _Body(self, stream_id)
        self._tasks.spawn(
            _handle, app, config, scope, body.receive, send, trio.to_thread.run_sync, trio.from_thread.run
        )
        return body.put


class _Body:
    """The body of one request on its way to the application. Bounded by the stream's window."""

    def __init__(self, requests: _Requests, stream_id: int) -> None:
        self._requests = requests
        self._stream_id = stream_id
        self._data = bytearray()
        self._ended = False
        self._end_told = False
        self._gone = False
        self._arrival = trio.Event()

    async def put(self, message: Any) -> None:
        """Takes a message for the application, without waiting for it."""
        if message["type"] == "http.disconnect":
            self._gone = True
            await self._requests.forget(self._stream_id)
        else:
            self._data += message["body"]
            self._ended = not message["more_body"]
        self._arrival.set()

    async def receive(self) -> Any:
        """Returns the next message, as ASGI's `receive`."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._gone:
                return {"type": "http.disconnect"}
            if self._data or (self._ended and not self._end_told):
                data = bytes(self._data)
                self._data.clear()
                self._end_told = self._ended
                await self._requests.pay(self._stream_id)
                return {"type": "http.request", "body": data, "more_body": not self._end_told}
            self._arrival = trio.Event()
            await self._arrival.wait()


class _Streams(dict[int, Any]):
    """The streams by id; one that has ended takes what comes late, and does nothing with it."""

    def __missing__(self, stream_id: int) -> _Ended:
        return _ENDED


class _Ended:
    async def handle(self, event: object) -> None:
        pass


_ENDED = _Ended()
