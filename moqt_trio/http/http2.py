"""HTTP/2 in which a slow application delays no request but its own.

Four parts of hypercorn are replaced; `tests/http/test_contract.py` fails when one of them moves.

- Hypercorn awaits the application's queue in the loop that reads the connection, and grants the client new credit
  before the application has read: one that does not read stops every request of its connection. Here what arrives waits
  in the stream's window, and credit returns as the application reads.
- There a body that goes on after the response ended is a KeyError; here it is dropped.
- There an application that sends to a client without credit queues one piece after another, without bound; here it
  waits, until there is credit or the connection is lost.
- There a response counts as sent just before its last piece is: a server that shuts down then loses the end of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.protocol.h2 import BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.trio.tcp_server import TCPServer

from .messages import QueueingTasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.typing import Event as IOEvent
    from hypercorn.typing import Scope

_DEFAULT_WINDOW = 65535
"""Bytes that a client may send on a connection before it gets credit (RFC 9113, section 6.9.2)."""


def _no_headers(record: logging.LogRecord) -> bool:
    """Keep the header compression's records out of every log: they have the values of Authorization and Cookie."""
    return record.levelno > logging.DEBUG


for _name in ("hpack.hpack", "hpack.table"):
    logging.getLogger(_name).addFilter(_no_headers)


class HttpConnection(TCPServer):
    """Hypercorn's connection over TCP; with HTTP/2 its requests are independent of each other.

    With HTTP/1.1 its applications get their messages from a `MessageQueue`.

    Attributes:
        connection_window: Bytes that a client may have sent on all requests together that no application has read.
    """

    connection_window: int = _DEFAULT_WINDOW

    async def _read_data(self) -> None:
        protocol = self.protocol.protocol
        if not isinstance(protocol, H2Protocol):
            protocol.task_group = cast("Any", QueueingTasks(protocol.task_group))
            await super()._read_data()
            return
        requests = _Requests(protocol)
        await requests.install(self.connection_window)
        await super()._read_data()
        await requests.connection_lost()


class _Requests:
    """The requests of one connection, and the credit that each is owed; takes the place of hypercorn's task group."""

    def __init__(self, protocol: H2Protocol) -> None:
        self._protocol = protocol
        self._tasks = QueueingTasks(protocol.task_group)
        self._buffers = _SendBuffers(protocol.context.event_class)
        self._acknowledge = protocol.connection.acknowledge_received_data
        self._send_data = protocol.connection.send_data
        self._end_stream = protocol.connection.end_stream
        self._owed: dict[int, int] = {}

    async def install(self, window: int) -> None:
        protocol = self._protocol
        protocol.task_group = cast("Any", self)
        protocol.streams = _Streams(protocol.streams)
        protocol.stream_buffers = cast("Any", self._buffers)
        protocol.connection.acknowledge_received_data = self._received  # type: ignore[method-assign]
        protocol.connection.send_data = self._send  # type: ignore[method-assign]
        protocol.connection.end_stream = self._end  # type: ignore[method-assign]
        if window > _DEFAULT_WINDOW:
            protocol.connection.increment_flow_control_window(window - _DEFAULT_WINDOW)
            await protocol._flush()

    def _received(self, acknowledged_size: int, stream_id: int) -> None:
        if stream_id in self._owed:
            self._owed[stream_id] += acknowledged_size
        else:
            self._acknowledge(acknowledged_size, stream_id)

    def _send(
        self, stream_id: int, data: bytes | memoryview, end_stream: bool = False, pad_length: Any | None = None
    ) -> None:
        # The end travels with the last piece: a client that has counted the bytes may close before a separate one.
        buffer = self._buffers[stream_id]
        self._send_data(stream_id, data, end_stream or buffer.complete, pad_length)
        if buffer.complete:
            buffer.ended.set()

    def _end(self, stream_id: int) -> None:
        buffer = self._buffers[stream_id]
        if not buffer.ended.is_set():
            self._end_stream(stream_id)
            buffer.ended.set()

    async def grant_credit(self, stream_id: int) -> None:
        """Grant the client credit for what was read."""
        length = self._owed.get(stream_id, 0)
        if length and not self._protocol.closed:
            self._owed[stream_id] = 0
            self._acknowledge(length, stream_id)
            await self._protocol._flush()

    async def request_ended(self, stream_id: int) -> None:
        """Called when a request has ended: what its application did not read counts as read."""
        await self.grant_credit(stream_id)
        self._owed.pop(stream_id, None)

    async def connection_lost(self) -> None:
        """Called when the connection was lost: wakes every task that waits to send."""
        for buffer in list(self._buffers.values()):
            await buffer.close()
            buffer.ended.set()

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._tasks.spawn(function, *arguments)

    async def spawn_app(
        self, app: ASGIWrapper, config: Config, scope: Scope, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        if scope["type"] != "http":
            # The messages of a WebSocket are not the bytes of its frames: a bounded queue holds them.
            return await self._tasks.spawn_app(app, config, scope, send)
        # `send` is the method `app_send` of hypercorn's stream.
        stream_id: int = cast("Any", send).__self__.stream_id
        self._owed[stream_id] = 0
        body = _Body(self, stream_id)
        self._tasks.run_app(app, config, scope, body.receive, send)
        return body.put


class _Body:
    """The body of one request that the application has not read. The stream's window bounds it."""

    def __init__(self, requests: _Requests, stream_id: int) -> None:
        self._requests = requests
        self._stream_id = stream_id
        self._data = bytearray()
        self._ended = False
        self._end_received = False
        self._disconnected = False
        self._arrival = trio.Event()

    async def put(self, message: Any) -> None:
        """Queue a message for the application, without waiting for it."""
        if message["type"] == "http.disconnect":
            self._disconnected = True
            await self._requests.request_ended(self._stream_id)
        else:
            self._data += message["body"]
            self._ended = not message["more_body"]
        self._arrival.set()

    async def receive(self) -> Any:
        """Wait for the next message, and return it; ASGI's `receive`."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._disconnected:
                return {"type": "http.disconnect"}
            if self._data or (self._ended and not self._end_received):
                data = bytes(self._data)
                self._data.clear()
                self._end_received = self._ended
                await self._requests.grant_credit(self._stream_id)
                return {"type": "http.request", "body": data, "more_body": not self._end_received}
            self._arrival = trio.Event()
            await self._arrival.wait()


class _SendBuffer(StreamBuffer):
    """What an application has sent, and its client has granted no credit for yet."""

    def __init__(self, event_class: type[IOEvent]) -> None:
        super().__init__(event_class)
        self.ended = trio.Event()

    async def drain(self) -> None:
        if self._complete:
            await self.ended.wait()
        else:
            await super().drain()

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        # Hypercorn compares what was popped, which is nothing while there is no credit.
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class _SendBuffers(dict[int, _SendBuffer]):
    """The buffers by stream id; each that hypercorn makes is replaced by a `_SendBuffer`."""

    def __init__(self, event_class: type[IOEvent]) -> None:
        super().__init__()
        self._event_class = event_class

    def __setitem__(self, stream_id: int, buffer: StreamBuffer) -> None:
        super().__setitem__(stream_id, _SendBuffer(self._event_class))

    def __delitem__(self, stream_id: int) -> None:
        self[stream_id].ended.set()
        super().__delitem__(stream_id)


class _Streams(dict[int, Any]):
    """The streams by id; what arrives for one that has ended is dropped."""

    def __missing__(self, stream_id: int) -> _Ended:
        return _ENDED


class _Ended:
    async def handle(self, event: object) -> None:
        pass


_ENDED = _Ended()
