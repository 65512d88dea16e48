"""Waiting for what a connection brings, for tests: the library itself uses handlers.

The first wait on a connection attaches `Arrivals` as its handler; from then on every wait has to come through here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

import trio

from moqt_trio.transport.connection import Connection, ConnectionHandler

if TYPE_CHECKING:
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.send_stream import SendStream
    from moqt_trio.transport.stream import BidiStream

T = TypeVar("T")

STEP = 16 * 1024
"""Bytes that `send_all` writes before it looks at the stream's buffer again."""


class Arrivals(ConnectionHandler):
    """Keeps what arrives on a connection until a test asks for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.bidi: deque[BidiStream] = deque()
        self.uni: deque[ReceiveStream] = deque()
        self.datagrams: deque[bytes] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        connection.handler = self

    def bidi_opened(self, stream: BidiStream) -> None:
        self.bidi.append(stream)
        self._waiting.unpark_all()

    def uni_opened(self, stream: ReceiveStream) -> None:
        self.uni.append(stream)
        self._waiting.unpark_all()

    def datagram_received(self, data: bytes) -> None:
        self.datagrams.append(data)
        self._waiting.unpark_all()

    def connection_lost(self, error: BaseException) -> None:
        self._waiting.unpark_all()

    async def next(self, queue: deque[T]) -> T:
        """Take the next item of a queue, waiting for it. Raises how the connection ended."""
        await trio.lowlevel.checkpoint()
        while not queue:
            if self.connection.closed is not None:
                raise self.connection.closed.with_traceback(None)
            await self._waiting.park()
        return queue.popleft()


def arrivals_of(connection: Connection) -> Arrivals:
    """Return what has arrived on a connection, which has no other handler."""
    handler = connection.handler
    if handler is None:
        return Arrivals(connection)
    assert isinstance(handler, Arrivals)
    return handler


async def accept_bidi(connection: Connection) -> BidiStream:
    """Wait for a bidirectional stream of the peer."""
    arrivals = arrivals_of(connection)
    return await arrivals.next(arrivals.bidi)


async def accept_uni(connection: Connection) -> ReceiveStream:
    """Wait for a unidirectional stream of the peer."""
    arrivals = arrivals_of(connection)
    return await arrivals.next(arrivals.uni)


async def receive_datagram(connection: Connection) -> bytes:
    """Wait for a datagram."""
    arrivals = arrivals_of(connection)
    return await arrivals.next(arrivals.datagrams)


async def send_all(stream: SendStream, data: bytes) -> None:
    """Write bytes, waiting whenever the stream's buffer is full."""
    await stream.wait_writable()
    for start in range(0, len(data), STEP):
        if start:
            await stream.wait_writable()
        stream.write(data[start : start + STEP])
