"""What every connection does in the same way: queues for whoever awaits, the hand-over to a handler, the end.

A transport derives from `BaseConnection`, calls its `_deliver_*` methods as the peer acts, and implements
`_open_nowait` and the `StreamBackend`. Everything here is synchronous but the waiting.
"""

from __future__ import annotations

import abc
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import trio

from .abc import BidiStream, Connection, ConnectionHandler, ReceiveStream, SendStream
from .stream import PLAIN_CODES, CodeMapping, Stream, StreamBackend

if TYPE_CHECKING:
    from ..errors import MoqtError
    from ..limits import Limits

T = TypeVar("T")

_STEP = 4 * 1024


def is_client_initiated(stream_id: int) -> bool:
    """Whether the client opened a stream (RFC 9000, section 2.1)."""
    return not stream_id & 1


def is_unidirectional(stream_id: int) -> bool:
    """Whether only one side sends on a stream (RFC 9000, section 2.1)."""
    return bool(stream_id & 2)


class BaseConnection(Connection):
    """A connection's queues and waiting. The bounds of the peer's streams are the transport's to keep."""

    def __init__(self, *, is_client: bool, limits: Limits) -> None:
        self.is_client = is_client
        self.limits = limits
        self.send_high = limits.send_high
        self.protocol: str | None = None
        self.path: str | None = None
        self.authority: str | None = None
        self._streams: dict[int, Stream] = {}
        self._handler: ConnectionHandler | None = None
        self._codes = PLAIN_CODES
        self._new_bidi: deque[Stream] = deque()
        self._new_uni: deque[Stream] = deque()
        self._datagrams: deque[bytes] = deque()
        self._datagrams_lost = 0
        self._bidi_readers = trio.lowlevel.ParkingLot()
        self._uni_readers = trio.lowlevel.ParkingLot()
        self._datagram_readers = trio.lowlevel.ParkingLot()
        self._openers = trio.lowlevel.ParkingLot()
        self._closed: MoqtError | None = None
        self._over = trio.Event()

    def __repr__(self) -> str:
        side = "client" if self.is_client else "server"
        state = "open" if self._closed is None else "closed"
        return f"<{type(self).__name__} {side} {self.protocol} {state} streams={len(self._streams)}>"

    # -- from the driver -----------------------------------------------------------------------------------

    def _announce(self, stream: Stream) -> None:
        if self._handler is not None:
            self._handler.stream_opened(stream)
        elif is_unidirectional(stream.stream_id):
            self._new_uni.append(stream)
            self._uni_readers.unpark()
        else:
            self._new_bidi.append(stream)
            self._bidi_readers.unpark()

    def _deliver_datagram(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.datagram_received(data)
            return
        if len(self._datagrams) >= self.limits.max_datagrams:
            self._datagrams.popleft()
            self._datagrams_lost += 1
        self._datagrams.append(data)
        self._datagram_readers.unpark()

    def _deliver_streams_available(self) -> None:
        self._openers.unpark_all()
        if self._handler is not None:
            self._handler.streams_available()

    def _deliver_send_room(self) -> None:
        if self._handler is not None:
            self._handler.send_room()

    def _deliver_lost(self, error: MoqtError) -> None:
        """Ends every stream and wakes everyone. The first error counts."""
        if self._closed is not None:
            return
        self._closed = error
        self._over.set()
        for lot in (self._bidi_readers, self._uni_readers, self._datagram_readers, self._openers):
            lot.unpark_all()
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.deliver_lost(error)
        if self._handler is not None:
            self._handler.connection_lost(error)

    # -- settings ------------------------------------------------------------------------------------------

    @property
    def code_mapping(self) -> CodeMapping:
        """How stream error codes are spelled on the wire. A change also holds for the streams that are open."""
        return self._codes

    @code_mapping.setter
    def code_mapping(self, mapping: CodeMapping) -> None:
        self._codes = mapping
        for stream in self._streams.values():
            stream.codes = mapping

    @property
    def handler(self) -> ConnectionHandler | None:
        return self._handler

    @handler.setter
    def handler(self, handler: ConnectionHandler | None) -> None:
        self._handler = handler
        if handler is None:
            return
        # Streams of both kinds are handed over in the order of their ids: the order of arrival is not kept.
        waiting = sorted((*self._new_bidi, *self._new_uni), key=lambda stream: stream.stream_id)
        self._new_bidi.clear()
        self._new_uni.clear()
        for stream in waiting:
            handler.stream_opened(stream)
        while self._datagrams:
            handler.datagram_received(self._datagrams.popleft())
        if self._closed is not None:
            handler.connection_lost(self._closed)

    # -- streams -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _open_nowait(self, *, unidirectional: bool) -> Stream:
        """Returns a new stream, or raises `trio.WouldBlock`."""

    def open_bidi_nowait(self) -> BidiStream:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        return self._open_nowait(unidirectional=False)

    def open_uni_nowait(self) -> SendStream:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        return self._open_nowait(unidirectional=True)

    async def open_bidi(self) -> BidiStream:
        return await self._open(unidirectional=False)

    async def open_uni(self) -> SendStream:
        return await self._open(unidirectional=True)

    async def _open(self, *, unidirectional: bool) -> Stream:
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            try:
                return self._open_nowait(unidirectional=unidirectional)
            except trio.WouldBlock:
                await self._openers.park()

    async def accept_bidi(self) -> BidiStream:
        return await self._next(self._new_bidi, self._bidi_readers)

    async def accept_uni(self) -> ReceiveStream:
        return await self._next(self._new_uni, self._uni_readers)

    async def receive_datagram(self) -> bytes:
        return await self._next(self._datagrams, self._datagram_readers)

    async def _next(self, queue: deque[T], readers: trio.lowlevel.ParkingLot) -> T:
        await trio.lowlevel.checkpoint()
        while not queue:
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            await readers.park()
        return queue.popleft()

    @property
    def send_allowance(self) -> int:
        """Bytes that may be written now without queueing up: 0 once enough waits to keep the link busy."""
        return 0 if self.congested else _STEP

    @property
    def congested(self) -> bool:
        return False

    # -- the end -------------------------------------------------------------------------------------------

    @property
    def closed(self) -> MoqtError | None:
        return self._closed

    async def wait_closed(self) -> MoqtError:
        await self._over.wait()
        assert self._closed is not None
        return self._closed


class StreamHost(BaseConnection, StreamBackend):
    """A connection that carries streams itself, and makes them as either side opens one."""

    def _stream(self, stream_id: int) -> Stream:
        """Returns a stream; one that the peer just opened is announced."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._add(stream_id, can_receive=True, can_send=not is_unidirectional(stream_id))
            self._announce(stream)
        return stream

    def _add(self, stream_id: int, *, can_receive: bool, can_send: bool) -> Stream:
        stream = Stream(self, stream_id, can_receive=can_receive, can_send=can_send, codes=self._codes)
        self._streams[stream_id] = stream
        return stream
