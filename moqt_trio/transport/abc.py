"""What the floor above may rely on, whatever carries the bytes: a connection with streams and datagrams.

Two ways to use it. Tests and simple programs *await*: `accept_bidi`, `receive_some`, `send_all`. The session
driver cannot afford a task per stream, so it attaches *handlers*: objects whose methods are called synchronously,
from the task that read the socket, as things happen. A handler must be quick, must not block and must not raise.

This file knows nothing of MoQ messages, of QUIC packets or of HTTP.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

if TYPE_CHECKING:
    from ..errors import MoqtError
    from .stream import CodeMapping


class StreamHandler:
    """Is told what happens on one stream. Every method has a default that does nothing.

    Attributes:
        keeps_after_reset: True for a handler that holds on to bytes after a reset: the peer gets no credit for them
            before `consumed` or `stop`. Else a reset gives back whatever was not consumed.
    """

    __slots__ = ()

    keeps_after_reset: ClassVar[bool] = False

    def data_received(self, data: bytes, fin: bool) -> None:
        """Bytes arrived, in order. Credit for them returns to the peer by `ReceiveStream.consumed`.

        Args:
            data: The bytes; may be empty when `fin` is set.
            fin: True when the peer finished the stream and nothing more will come.
        """

    def reset_received(self, code: int) -> None:
        """The peer gave up its sending half; nothing more will come."""

    def stop_received(self, code: int) -> None:
        """The peer refuses to read our sending half (STOP_SENDING); the transport has reset it."""

    def send_ready(self) -> None:
        """The send buffer, which had been full, has room again."""

    def send_finished(self) -> None:
        """Everything written on the stream, FIN included, has reached the peer."""

    def connection_lost(self, error: MoqtError) -> None:
        """The connection is over, and with it the stream."""


class ConnectionHandler:
    """Is told what happens on a connection. Every method has a default that does nothing."""

    __slots__ = ()

    def stream_opened(self, stream: ReceiveStream) -> None:
        """The peer opened a stream; set `stream.handler` to hear of it. A `BidiStream` is also a `SendStream`."""

    def datagram_received(self, data: bytes) -> None:
        """A datagram arrived."""

    def streams_available(self) -> None:
        """The peer allows more streams than before; `open_*_nowait` may succeed now."""

    def send_room(self) -> None:
        """The connection, which had been `congested`, takes more."""

    def connection_lost(self, error: MoqtError) -> None:
        """The connection is over. Each open stream's handler was told before."""


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


class AnyStream(abc.ABC):
    """A stream of either direction.

    Attributes:
        stream_id: The number of the stream in QUIC's scheme (RFC 9000, section 2.1).
    """

    stream_id: int

    @property
    @abc.abstractmethod
    def handler(self) -> StreamHandler | None:
        """Who is told what arrives; None while arrivals wait for `receive_some`."""

    @handler.setter
    @abc.abstractmethod
    def handler(self, handler: StreamHandler | None) -> None:
        """Attaches a handler. What arrived before is handed to it at once, in order."""


class ReceiveStream(AnyStream):
    """The half of a stream that the peer sends on."""

    @abc.abstractmethod
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Waits for bytes and returns them; returns b"" once the peer has finished the stream.

        Credit for the bytes returns to the peer. Cancelling loses nothing.

        Raises:
            StreamReset: The peer reset the stream.
            SessionClosed: The connection ended.
            trio.ClosedResourceError: This side stopped the stream.
            trio.BusyResourceError: Another task is receiving.
        """

    @abc.abstractmethod
    def consumed(self, count: int) -> None:
        """Gives the peer credit for bytes that a handler received and that were now used."""

    @abc.abstractmethod
    def stop(self, code: int, *, keep_unread: bool = False) -> None:
        """Refuses everything that is still to come (STOP_SENDING). Does nothing once the half has ended.

        Args:
            code: The stream's code.
            keep_unread: True when what a handler received can still be read: its credit waits for `consumed`. Otherwise
                the peer gets credit for everything at once.
        """

    @property
    @abc.abstractmethod
    def receive_ended(self) -> bool:
        """True once the peer finished or reset the stream, or this side stopped it."""


class SendStream(AnyStream):
    """The half of a stream that this side sends on."""

    @abc.abstractmethod
    def write(self, data: bytes, fin: bool = False) -> None:
        """Queues bytes, all of them, at once. Look at `writable` first: nothing here limits the queue.

        Raises:
            StreamReset: The peer stopped the stream.
            SessionClosed: The connection ended.
            trio.ClosedResourceError: This side finished or reset the stream.
        """

    @property
    @abc.abstractmethod
    def writable(self) -> bool:
        """True while fewer than `Limits.send_high` bytes wait in the send buffer."""

    @property
    @abc.abstractmethod
    def buffered(self) -> int:
        """Bytes that wait in the send buffer: written, and not yet acknowledged by the peer."""

    @property
    @abc.abstractmethod
    def held_up(self) -> bool:
        """True when something written could not leave: the link or the peer's credit does not allow it yet."""

    @abc.abstractmethod
    async def wait_writable(self) -> None:
        """Waits until `writable` holds; always a checkpoint. Raises what `write` raises."""

    @abc.abstractmethod
    async def send_all(self, data: bytes) -> None:
        """Sends bytes, waiting whenever the buffer is full. Cancelled midway, an unknown part was sent.

        Raises: what `write` raises, and trio.BusyResourceError while another task is sending.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Ends the half cleanly (FIN). Does nothing once it has ended."""

    @abc.abstractmethod
    def reset(self, code: int) -> None:
        """Gives the half up (RESET_STREAM). Does nothing once it has been reset or the peer has it all."""

    @property
    @abc.abstractmethod
    def send_ended(self) -> bool:
        """True once this side finished or reset the half, or the peer stopped it."""


class BidiStream(SendStream, ReceiveStream):
    """A stream with both halves."""


class Connection(abc.ABC):
    """A connection: streams both ways, and datagrams.

    Attributes:
        is_client: True on the side that connected.
        kind: What carries it.
        protocol: The negotiated application protocol: an ALPN token, a WebTransport subprotocol, or None.
        path: The request path with its query, where the transport has one (WebTransport); None elsewhere.
        authority: The host and port that the client asked for, where known.
        peer: The peer's address and port, where there is one.
    """

    is_client: bool
    kind: Literal["quic", "webtransport", "memory"]
    protocol: str | None
    path: str | None
    authority: str | None
    peer: tuple[str, int] | None
    code_mapping: CodeMapping

    @property
    @abc.abstractmethod
    def handler(self) -> ConnectionHandler | None:
        """Who is told of new streams and datagrams; None while they wait for `accept_*` and `receive_datagram`."""

    @handler.setter
    @abc.abstractmethod
    def handler(self, handler: ConnectionHandler | None) -> None:
        """Attaches a handler. Streams and datagrams that arrived before are handed to it at once, in order."""

    @abc.abstractmethod
    def open_bidi_nowait(self) -> BidiStream:
        """Returns a new stream. Raises `trio.WouldBlock` at the peer's limit, else what `write` raises."""

    @abc.abstractmethod
    def open_uni_nowait(self) -> SendStream:
        """Returns a new stream. Raises `trio.WouldBlock` at the peer's limit, else what `write` raises."""

    @abc.abstractmethod
    async def open_bidi(self) -> BidiStream:
        """Returns a new stream, waiting for the peer to allow one."""

    @abc.abstractmethod
    async def open_uni(self) -> SendStream:
        """Returns a new stream, waiting for the peer to allow one."""

    @abc.abstractmethod
    async def accept_bidi(self) -> BidiStream:
        """Waits for a stream that the peer opens. Raises `SessionClosed`."""

    @abc.abstractmethod
    async def accept_uni(self) -> ReceiveStream:
        """Waits for a stream that the peer opens. Raises `SessionClosed`."""

    @property
    @abc.abstractmethod
    def send_allowance(self) -> int:
        """Bytes that may be written now without queueing up: 0 once enough waits to keep the link busy.

        Once it has been 0, the handler's `send_room` follows.
        """

    @property
    @abc.abstractmethod
    def congested(self) -> bool:
        """True while enough bytes wait to leave to keep the link busy; what is written now only queues up behind.

        Once it has been True, the handler's `send_room` follows. Where the link never is the bottleneck it is False.
        """

    @property
    @abc.abstractmethod
    def max_datagram_size(self) -> int:
        """Bytes of the longest datagram that can be sent now; 0 when the peer takes none."""

    @abc.abstractmethod
    def send_datagram(self, data: bytes) -> None:
        """Queues a datagram. The queue is bounded: when it is full the oldest is thrown away and counted.

        Raises:
            ValueError: It is longer than `max_datagram_size`.
            SessionClosed: The connection ended.
        """

    @abc.abstractmethod
    async def receive_datagram(self) -> bytes:
        """Waits for a datagram. Raises `SessionClosed`."""

    @abc.abstractmethod
    def close(self, code: int = 0, reason: str = "") -> None:
        """Starts closing: the peer is told, every stream is over at once. Does nothing the second time.

        Args:
            code: A session error code.
            reason: A text for the peer's log; cut at 1024 bytes.
        """

    @property
    @abc.abstractmethod
    def closed(self) -> MoqtError | None:
        """How the connection ended (`SessionClosed`), or None while it lives."""

    @abc.abstractmethod
    async def wait_closed(self) -> MoqtError:
        """Waits until the connection is over, and returns how."""

    @abc.abstractmethod
    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Closes and waits until the peer was told. Finishes even when cancelled, and may be called again."""

    @abc.abstractmethod
    def statistics(self) -> TransportStatistics:
        """Returns the connection's numbers."""
