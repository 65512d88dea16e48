"""The seam between the driver and a QUIC engine.

An engine is sans-IO: it is given datagrams and the time, and gives datagrams and the time at which it wants to be
called again. What happens on a connection it tells an `EngineHandler`, synchronously, while `deliver_events` runs.
This file names no implementation: a second engine needs a module of its own and nothing else.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs

from ...errors import SessionClosed

if TYPE_CHECKING:
    from ..connection import TransportStatistics
    from .settings import ClientSettings, ServerSettings

Address = tuple[Any, ...]
"""A socket address as the `socket` module spells it: host, port, and for IPv6 two more."""

CONNECTION_ID_BYTES = 8
"""The length of every connection id that this side chooses, so that short headers can be routed."""


@attrs.frozen(kw_only=True)
class Termination:
    """How a QUIC connection ended.

    Attributes:
        code: The error code, in the application's space or in QUIC's.
        reason: The text that came with it; the peer's text is not safe to show as it stands.
        application: True when the code is the application's.
        by_peer: True when the peer closed.
        idle: True when nobody closed: the peer fell silent.
    """

    code: int
    reason: str
    application: bool
    by_peer: bool
    idle: bool

    def error(self) -> SessionClosed:
        """Returns what the streams of the connection, and whoever waits, are told."""
        if self.idle:
            return SessionClosed(reason="idle timeout")
        if self.application and self.by_peer:
            return SessionClosed(remote_code=self.code, reason=self.reason, by_peer=True)
        if self.application:
            return SessionClosed(local_code=self.code, reason=self.reason)
        reason = self.reason
        if self.code or not reason:
            reason = f"QUIC error {self.code:#x}" + (f": {reason}" if reason else "")
        return SessionClosed(reason=reason, by_peer=self.by_peer)


class Credit(enum.Enum):
    """When credit that the peer has earned is to be sent."""

    LATER = "later"
    SOON = "soon"
    NOW = "now"


class EngineHandler(Protocol):
    """Hears of what happens on one connection, in the order in which it happened."""

    def handshake_completed(self, alpn: str | None, server_name: str | None) -> None:
        """The peer is who it should be; streams may be opened."""

    def data_arrived(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Bytes arrived on a stream, and perhaps its end."""

    def reset_arrived(self, stream_id: int, code: int) -> None:
        """The peer sent RESET_STREAM."""

    def stop_arrived(self, stream_id: int, code: int) -> None:
        """The peer sent STOP_SENDING; the engine answers it with a reset."""

    def stream_writable(self, stream_id: int) -> None:
        """A watched stream's send buffer fell below its low mark."""

    def stream_acknowledged(self, stream_id: int) -> None:
        """The peer has everything that was written on a stream, FIN included."""

    def stream_gone(self, stream_id: int) -> None:
        """Both halves are over and acknowledged: nothing more will be told of this stream."""

    def streams_available(self) -> None:
        """The peer raised a limit on streams."""

    def datagram_arrived(self, data: bytes) -> None:
        """A datagram arrived."""

    def connection_id_issued(self, connection_id: bytes) -> None:
        """Packets for this connection may carry a further id."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """The peer gave an id back."""


class Engine(abc.ABC):
    """One QUIC connection.

    Attributes:
        connection_id: The id that this side chose first.
        termination: How the connection ended, or None while it lives. Set before the last packets are sent.
    """

    connection_id: bytes
    termination: Termination | None

    @abc.abstractmethod
    def connect(self, address: Address, now: float) -> None:
        """Starts the handshake of a client."""

    @abc.abstractmethod
    def receive_datagram_untrusted(self, data: bytes, address: Address, now: float) -> None:
        """Takes a UDP payload."""

    @property
    @abc.abstractmethod
    def established(self) -> bool:
        """True once a packet of the peer was authenticated, be it only with the keys of the first flight."""

    @abc.abstractmethod
    def deliver_events(self) -> None:
        """Tells the handler what came of the datagrams and timeouts since the last call."""

    @abc.abstractmethod
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """Returns the UDP payloads that may leave now, and where to; when there are many, the first of them."""

    @property
    @abc.abstractmethod
    def unfinished(self) -> bool:
        """True when `datagrams_to_send` has more to return at once; what it returned should leave first."""

    @abc.abstractmethod
    def has_work(self, now: float) -> bool:
        """Returns False when `datagrams_to_send` would surely return nothing."""

    @abc.abstractmethod
    def next_timeout(self) -> float | None:
        """Returns when `handle_timeout` wants to be called; None once all is over."""

    @abc.abstractmethod
    def handle_timeout(self, now: float) -> None:
        """Takes the passing of time."""

    @abc.abstractmethod
    def ping(self) -> None:
        """Asks the peer for a sign of life."""

    @abc.abstractmethod
    def close(self, code: int, reason: str, *, application: bool = True) -> None:
        """Ends the connection; the next `datagrams_to_send` tells the peer."""

    # -- streams -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def open_stream(self, *, unidirectional: bool) -> int | None:
        """Returns the id of a new stream, or None at the peer's limit."""

    @abc.abstractmethod
    def write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Queues bytes. Does nothing for a half that has ended."""

    @abc.abstractmethod
    def buffered(self, stream_id: int) -> int:
        """Returns the bytes of a stream that were queued and are not acknowledged."""

    @abc.abstractmethod
    def watch(self, stream_id: int, low: int) -> None:
        """Asks for one `stream_writable` once fewer than `low` bytes are buffered."""

    @abc.abstractmethod
    def reset(self, stream_id: int, code: int) -> None:
        """Sends RESET_STREAM. Does nothing for a half that has ended."""

    @abc.abstractmethod
    def stop(self, stream_id: int, code: int) -> None:
        """Sends STOP_SENDING. Does nothing for a half that has ended."""

    @abc.abstractmethod
    def consumed(self, stream_id: int, count: int) -> bool:
        """Counts bytes as read by the application. Returns True when the peer's credit is to be raised now."""

    @abc.abstractmethod
    def done(self, stream_id: int) -> Credit:
        """The application has read all of a stream. Once, per stream. Returns when credit for another is to be sent."""

    @property
    @abc.abstractmethod
    def unsent(self) -> int:
        """Bytes written that were in no packet yet: datagrams, and of each stream what the peer's credit allows."""

    @abc.abstractmethod
    def unsent_on(self, stream_id: int) -> int:
        """Returns the bytes of one stream that were in no packet yet, for whatever reason."""

    @property
    @abc.abstractmethod
    def congestion_window(self) -> int:
        """Bytes that may be in flight."""

    @property
    @abc.abstractmethod
    def window_left(self) -> int:
        """Bytes that the congestion window lets leave now; never below 0."""

    # -- datagrams -----------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def peer_datagram_limit(self) -> int | None:
        """The peer's `max_datagram_frame_size` in bytes; None when it sent none."""

    @property
    @abc.abstractmethod
    def max_datagram_payload(self) -> int:
        """Bytes of the longest datagram that fits a packet and the peer's limit; 0 when it takes none."""

    @abc.abstractmethod
    def send_datagram(self, data: bytes) -> bool:
        """Queues a datagram. Returns False when an older one was thrown away for it."""

    @property
    @abc.abstractmethod
    def peer_address(self) -> Address | None:
        """Where the peer is now; it may move."""

    @abc.abstractmethod
    def statistics(self) -> TransportStatistics:
        """Returns what the engine counts; the rest of the fields are zero."""


@attrs.frozen
class LongHeader:
    """What the long header of a packet says before anything is decrypted (RFC 9000, section 17.2)."""

    kind: Literal["initial", "negotiation", "other"]
    version: int
    destination_id: bytes
    source_id: bytes
    token: bytes


@attrs.frozen
class Validated:
    """The ids that a client's address token proves (RFC 9000, section 8.1.2)."""

    original_destination_id: bytes
    retry_source_id: bytes


class EngineFactory(Protocol):
    """Makes engines, and the packets that a listener sends without one."""

    def client(self, settings: ClientSettings, packet_size: int, handler: EngineHandler) -> Engine:
        """Returns an engine for `connect`."""
        ...

    def server(
        self,
        settings: ServerSettings,
        packet_size: int,
        handler: EngineHandler,
        header: LongHeader,
        validated: Validated | None,
    ) -> Engine:
        """Returns an engine for the connection that a client's first packet asks for."""
        ...

    def parse_header_untrusted(self, data: bytes) -> LongHeader | None:
        """Returns a datagram's first long header, or None when it has none that makes sense."""
        ...

    def supports(self, version: int) -> bool:
        """Whether a QUIC version is spoken."""
        ...

    def version_negotiation(self, header: LongHeader) -> bytes:
        """Returns the answer to a packet of another QUIC version."""
        ...

    def retry(self, header: LongHeader, address: Address, now: float) -> bytes:
        """Returns a Retry packet, whose token proves the client's address when it comes back."""
        ...

    def check_token_untrusted(self, header: LongHeader, address: Address, now: float) -> Validated | None:
        """Returns what a token proves, or None when it proves nothing."""
        ...
