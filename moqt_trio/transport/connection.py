"""A connection: streams both ways, and datagrams. What every transport does in the same way.

`Connection` owns the queues of what arrives before there is a handler, the waiting, and the end. A transport derives
from it, calls its `_deliver_*` methods and `_announce` as the peer acts, and implements the abstract methods. A
transport that carries the streams itself derives from `StreamHost`, which makes them, and implements `StreamBackend`.

A session attaches a handler, which is called synchronously from the task that reads the socket. What arrives before
waits for it, within the limits; only the stream of an in-band handshake can be accepted without one (`accept_bidi`).
"""

from __future__ import annotations

import abc
from collections import deque
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ..errors import fresh
from .code_mapping import PLAIN_CODES, CodeMapping
from .receive_stream import ReceiveStream
from .send_stream import SendStream
from .stream import BidiStream

if TYPE_CHECKING:
    from ..errors import MoqtError
    from ..limits import Limits
    from .interface import AnyStream, StreamBackend

UNCONGESTED_WRITE = 4 * 1024
"""Bytes that may be written at a time on a transport that cannot say how much would queue up: a few packets' worth, so
that `send_allowance` is read again before much has been written."""

MAX_CLOSE_REASON = 1024
"""Bytes of the text that a connection is closed with: what a WebTransport capsule may carry
(draft-ietf-webtrans-http3, section 6), and what fits in a QUIC packet."""


def cut_reason(reason: str) -> str:
    """Return the part of a text that a connection can be closed with. What UTF-8 cannot encode becomes "?"."""
    return reason.encode(errors="replace")[:MAX_CLOSE_REASON].decode(errors="ignore")


class ConnectionHandler:
    """Called with what happens on a connection. Every method has a default that does nothing."""

    __slots__ = ()

    def bidi_opened(self, stream: BidiStream) -> None:
        """Called when the peer opened a bidirectional stream. What arrives on it waits for `stream.handler`."""

    def uni_opened(self, stream: ReceiveStream) -> None:
        """Called when the peer opened a unidirectional stream. What arrives on it waits for `stream.handler`."""

    def datagram_received(self, data: bytes) -> None:
        """Called when a datagram arrived."""

    def streams_available(self) -> None:
        """Called when the peer allows more streams than before; `open_*_nowait` may succeed now."""

    def draining(self) -> None:
        """Called once when the peer asks this side, at the transport's level, to leave."""

    def send_room(self) -> None:
        """Called when the connection takes more, after `send_allowance` has been 0."""

    def connection_lost(self, error: MoqtError) -> None:
        """Called when the connection has ended, after the handler of each open stream."""


@attrs.frozen(kw_only=True)
class TransportStatistics:
    """Numbers of one connection. WebTransport sessions on one connection share them.

    Attributes:
        bytes_sent: UDP payload bytes written.
        bytes_received: UDP payload bytes read.
        datagrams_lost: Datagrams thrown away here because a queue was full.
        rtt: Smoothed round trip in seconds; 0.0 before the first sample.
        congestion_window: Bytes that may be in flight.
        bytes_in_flight: Bytes sent and not acknowledged.
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_lost: int = 0
    rtt: float = 0.0
    congestion_window: int = 0
    bytes_in_flight: int = 0


class _Early:
    """What arrived on a connection before there was a handler, and who waits for it."""

    __slots__ = ("acceptors", "bidi", "datagrams", "uni")

    def __init__(self) -> None:
        self.bidi: deque[BidiStream] = deque()
        self.uni: deque[ReceiveStream] = deque()
        self.datagrams: deque[bytes] = deque()
        self.acceptors = trio.lowlevel.ParkingLot()


class Connection(abc.ABC):
    """A connection: streams both ways, and datagrams. The transport enforces the limits on the peer's streams.

    Attributes:
        is_client: True on the side that connected.
        limits: The bounds of the connection.
        kind: What carries it.
        protocol: The negotiated application protocol: an ALPN token, a WebTransport subprotocol, or None.
        path: The request path with its query, where the transport has one (WebTransport); None elsewhere.
        authority: The host and port that the client asked for, where known.
        peer: The peer's address and port, where there is one.
        client_certificate: On a server, the client's verified certificate in DER; None where it showed none.
        local: The address and port that this side's socket is bound to, where there is one; it may be a wildcard.
        streams: The open streams by id.
        draining: True once the peer asked this side, at the transport's level, to leave.
        send_high: Bytes in a stream's send buffer at which it stops being writable.
        session_codes: How the code that the connection is closed with is written on the wire. The `SessionClosed` of
            both sides has the codes as they are before that.
    """

    kind: Literal["quic", "webtransport", "memory"]

    def __init__(self, *, is_client: bool, limits: Limits) -> None:
        self.is_client = is_client
        self.limits = limits
        self.send_high = limits.send_high
        self.protocol: str | None = None
        self.path: str | None = None
        self.authority: str | None = None
        self.peer: tuple[str, int] | None = None
        self.client_certificate: bytes | None = None
        self.local: tuple[str, int] | None = None
        self.draining = False
        self.streams: dict[int, AnyStream] = {}
        self._handler: ConnectionHandler | None = None
        self.session_codes = PLAIN_CODES
        self._codes = PLAIN_CODES
        self._early: _Early | None = None
        self._datagrams_lost = 0
        self._openers: trio.lowlevel.ParkingLot | None = None
        self._closed: MoqtError | None = None
        self._over = trio.Event()

    def __repr__(self) -> str:
        side = "client" if self.is_client else "server"
        state = "open" if self._closed is None else "closed"
        return f"<{type(self).__name__} {side} {self.protocol} {state} streams={len(self.streams)}>"

    # -- for the transport ---------------------------------------------------------------------------------

    def _announce_bidi(self, stream: BidiStream) -> None:
        """Hand over a bidirectional stream that the peer opened."""
        if self._handler is not None:
            self._handler.bidi_opened(stream)
        else:
            early = self._early_arrivals()
            early.bidi.append(stream)
            early.acceptors.unpark()

    def _announce_uni(self, stream: ReceiveStream) -> None:
        """Hand over a unidirectional stream that the peer opened."""
        if self._handler is not None:
            self._handler.uni_opened(stream)
        else:
            self._early_arrivals().uni.append(stream)

    def _deliver_datagram(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.datagram_received(data)
            return
        datagrams = self._early_arrivals().datagrams
        if len(datagrams) >= self.limits.max_datagrams:
            datagrams.popleft()
            self._datagrams_lost += 1
        datagrams.append(data)

    def _early_arrivals(self) -> _Early:
        if self._early is None:
            self._early = _Early()
        return self._early

    def _deliver_streams_available(self) -> None:
        if self._openers is not None:
            self._openers.unpark_all()
        if self._handler is not None:
            self._handler.streams_available()

    def _deliver_draining(self) -> None:
        if not self.draining and self._closed is None:
            self.draining = True
            if self._handler is not None:
                self._handler.draining()

    def _deliver_send_room(self) -> None:
        if self._handler is not None:
            self._handler.send_room()

    def _deliver_lost(self, error: MoqtError) -> None:
        """End every stream and wake every waiting task. The first error counts."""
        if self._closed is not None:
            return
        self._closed = error
        self._over.set()
        if self._early is not None:
            self._early.acceptors.unpark_all()
        if self._openers is not None:
            self._openers.unpark_all()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.deliver_lost(error)
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)

    # -- settings ------------------------------------------------------------------------------------------

    @property
    def code_mapping(self) -> CodeMapping:
        """How stream error codes are written on the wire. A change also holds for the streams that are open."""
        return self._codes

    @code_mapping.setter
    def code_mapping(self, mapping: CodeMapping) -> None:
        self._codes = mapping
        for stream in self.streams.values():
            stream.codes = mapping

    @property
    def handler(self) -> ConnectionHandler | None:
        """What is called with new streams and datagrams; None while they wait for `accept_bidi` or for a handler.

        What happened before is handed to a new handler at once: streams and datagrams, in order, then the peer's wish
        that this side leaves, then the end.
        """
        return self._handler

    @handler.setter
    def handler(self, handler: ConnectionHandler | None) -> None:
        self._handler = handler
        if handler is None:
            return
        early, self._early = self._early, None
        if early is not None:
            early.acceptors.unpark_all()
            # Streams of both kinds are handed over in the order of their ids: the order of arrival is not kept.
            waiting = [(bidi.stream_id, partial(self._announce_bidi, bidi)) for bidi in early.bidi]
            waiting += [(uni.stream_id, partial(self._announce_uni, uni)) for uni in early.uni]
            for _, announce in sorted(waiting, key=itemgetter(0)):
                announce()
            while early.datagrams:
                handler.datagram_received(early.datagrams.popleft())
        if self.draining:
            handler.draining()
        if self._closed is not None:
            handler.connection_lost(self._closed)

    # -- streams -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _open_bidi(self) -> BidiStream:
        """Return a new stream, or raise `trio.WouldBlock`."""

    @abc.abstractmethod
    def _open_uni(self) -> SendStream:
        """Return a new stream, or raise `trio.WouldBlock`."""

    @property
    @abc.abstractmethod
    def bidi_left(self) -> int:
        """Bidirectional streams that the peer allows now."""

    def open_bidi_nowait(self) -> BidiStream:
        """Return a new stream. Raises `trio.WouldBlock` at the peer's limit, else what `SendStream.write` raises."""
        if self._closed is not None:
            raise fresh(self._closed)
        return self._open_bidi()

    def open_uni_nowait(self) -> SendStream:
        """Return a new stream. Raises `trio.WouldBlock` at the peer's limit, else what `SendStream.write` raises."""
        if self._closed is not None:
            raise fresh(self._closed)
        return self._open_uni()

    async def open_bidi(self) -> BidiStream:
        """Return a new stream, waiting for the peer to allow one."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.open_bidi_nowait()
            except trio.WouldBlock:
                await self._wait_streams_available()

    async def open_uni(self) -> SendStream:
        """Return a new stream, waiting for the peer to allow one."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.open_uni_nowait()
            except trio.WouldBlock:
                await self._wait_streams_available()

    async def _wait_streams_available(self) -> None:
        if self._openers is None:
            self._openers = trio.lowlevel.ParkingLot()
        await self._openers.park()

    async def accept_bidi(self) -> BidiStream:
        """Wait for a bidirectional stream that the peer opens, while there is no handler. Raises `SessionClosed`."""
        await trio.lowlevel.checkpoint()
        while True:
            early = self._early_arrivals()
            if early.bidi:
                return early.bidi.popleft()
            if self._closed is not None:
                raise fresh(self._closed)
            await early.acceptors.park()

    @property
    def send_allowance(self) -> int:
        """Bytes that may be written now without queueing up: 0 once enough waits to keep the link busy.

        Once it has been 0, the handler's `send_room` follows. Where the link never is the bottleneck it never is 0.
        """
        return UNCONGESTED_WRITE

    @property
    def crowded(self) -> bool:
        """True while the streams hold more than half of `Limits.send_buffer`."""
        return False

    def flush(self) -> None:  # noqa: B027 - a transport without packets has nothing to gain
        """Send what was written now rather than in the next step of the scheduler, unless the connection is busy."""

    # -- datagrams -----------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def max_datagram_size(self) -> int:
        """Bytes of the longest datagram that can be sent now; 0 when the peer takes none."""

    @abc.abstractmethod
    def send_datagram(self, data: bytes) -> None:
        """Queue a datagram. The queue is bounded: when it is full the oldest is thrown away and counted.

        Raises:
            ValueError: It is longer than `max_datagram_size`.
            SessionClosed: The connection ended.
        """

    # -- the end -------------------------------------------------------------------------------------------

    def set_in_use(self, in_use: bool) -> None:  # noqa: B027 - only a listener's connections compete for places
        """Say whether a session or a request uses the connection; without a word one does.

        A listener that is full ends a connection that is not in use, to make room for another client.
        """

    def drain(self) -> None:  # noqa: B027 - not every transport has one
        """Ask the peer, at the transport's level, to leave. Does nothing where the transport has no way to say so."""

    @abc.abstractmethod
    def close(self, code: int = 0, reason: str = "") -> None:
        """Start closing: the peer is informed, every stream ends at once. Does nothing the second time.

        Args:
            code: A session error code.
            reason: A text for the peer's log; cut at `MAX_CLOSE_REASON` bytes.
        """

    @property
    def closed(self) -> MoqtError | None:
        """How the connection ended (`SessionClosed`), or None while it lives."""
        return self._closed

    async def wait_closed(self) -> MoqtError:
        """Wait until the connection has ended, and return how."""
        await self._over.wait()
        assert self._closed is not None
        return self._closed

    @abc.abstractmethod
    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Close and wait until the peer was informed. Finishes even when cancelled, and may be called again."""

    @abc.abstractmethod
    def statistics(self) -> TransportStatistics:
        """Return the connection's numbers."""


class StreamHost(Connection):
    """A connection that carries streams itself, and makes them as either side opens one.

    A transport sets `_backend`: what the streams write to.
    """

    _backend: StreamBackend

    @abc.abstractmethod
    def _open_id(self, *, unidirectional: bool) -> int:
        """Return the id of a new stream, or raise `trio.WouldBlock`."""

    def _open_bidi(self) -> BidiStream:
        stream_id = self._open_id(unidirectional=False)
        stream = self.streams[stream_id] = BidiStream(self._backend, stream_id, self._codes)
        return stream

    def _open_uni(self) -> SendStream:
        stream_id = self._open_id(unidirectional=True)
        stream = self.streams[stream_id] = SendStream(self._backend, stream_id, self._codes)
        return stream

    def stream(self, stream_id: int) -> AnyStream:
        """Return a stream; one that the peer just opened is announced."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream
        # As `is_unidirectional` does, in line: this is done for every stream.
        if stream_id & 2:
            uni = self.streams[stream_id] = ReceiveStream(self._backend, stream_id, self._codes)
            self._announce_uni(uni)
            return uni
        bidi = self.streams[stream_id] = BidiStream(self._backend, stream_id, self._codes)
        self._announce_bidi(bidi)
        return bidi
