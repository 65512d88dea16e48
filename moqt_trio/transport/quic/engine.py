"""The interface between a QUIC connection and its engine.

An engine is sans-IO: it is given datagrams and the time, and returns datagrams and the time at which it wants to be
called again. It carries the streams: it is their `StreamBackend`, and while `deliver_events` runs it calls them with
what arrived. For all else it calls its `EngineHandler`. An engine is passed to `connect_quic` and `serve_quic` as an
`EngineFactory`; this file names no implementation.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from ...errors import SessionClosed
from ..interface import StreamBackend

if TYPE_CHECKING:
    from ..code_mapping import CodeMapping
    from ..connection import TransportStatistics
    from ..interface import AnyStream
    from ..sockets import Address
    from .settings import ClientSettings, ServerSettings

CONNECTION_ID_BYTES = 8
"""The length of every connection id that this side chooses. Short headers do not state it, so it is one for all; eight
random bytes cannot be guessed or collide."""


IDLE = "idle timeout"
"""The reason for which a session of a peer that fell silent ends."""


@attrs.frozen(kw_only=True)
class Termination:
    """How a QUIC connection ended.

    Attributes:
        code: The error code, in the application's space or in QUIC's.
        reason: The text that came with it; the peer's text is not safe to show as it stands.
        application: True when the code is the application's.
        by_peer: True when the peer closed.
        idle: True when neither side closed: the peer fell silent.
    """

    code: int
    reason: str
    application: bool
    by_peer: bool
    idle: bool

    def error(self, codes: CodeMapping, local_code: int) -> SessionClosed:
        """Return the error of the streams of the connection, and of the tasks that wait for them.

        Args:
            codes: How the application's codes are written on the wire.
            local_code: The code that this side closed with, before it was mapped. It counts if this side closed.
        """
        if self.idle:
            return SessionClosed(reason=IDLE)
        if self.application and self.by_peer:
            return SessionClosed(remote_code=codes.from_wire(self.code), reason=self.reason, by_peer=True)
        if self.application:
            return SessionClosed(local_code=local_code, reason=self.reason)
        reason = self.reason
        if self.code or not reason:
            reason = f"QUIC error {self.code:#x}" + (f": {reason}" if reason else "")
        return SessionClosed(reason=reason, by_peer=self.by_peer)


class EngineHandler(Protocol):
    """What an engine calls for its connection, in the order in which things happen.

    Attributes:
        flush_due: True when something waits for the next call of `datagrams_to_send`.
        streams: The open streams by id. The engine removes a stream once both halves have ended and are acknowledged.
    """

    flush_due: bool
    streams: dict[int, AnyStream]

    def stream(self, stream_id: int) -> AnyStream:
        """Return a stream, by a call of the connection's handler if the peer just opened it."""
        ...

    def wake(self, written: int = 0) -> None:
        """Called when something is to be sent.

        Args:
            written: Bytes that were just written, and one for a message without bytes; 0 when it is not for writing.
        """

    def wake_later(self) -> None:
        """Called when credit for the peer is to be sent, unless the reader is about to return more."""

    def handshake_completed(self, alpn: str | None, server_name: str | None) -> None:
        """Called when the peer is authenticated, and a client's certificate was accepted; streams may be opened."""

    def streams_available(self) -> None:
        """Called when the peer raised a limit on streams."""

    def datagram_received(self, data: bytes) -> None:
        """Called when a datagram arrived."""

    def peer_moved(self, address: Address) -> None:
        """Called when the peer's address has changed."""

    def connection_id_issued(self, connection_id: bytes) -> None:
        """Called when packets for this connection may carry a further id."""

    def connection_id_retired(self, connection_id: bytes) -> None:
        """Called when the peer gave an id back."""


class Engine(StreamBackend, abc.ABC):
    """One QUIC connection, and the backend of its streams.

    Attributes:
        connection_id: The id that this side chose first.
        client_certificate: On a server, the client's verified certificate in DER once the handshake is complete; None
            when the client showed none.
        heard_at: When the last packet arrived that was authentic and not a repetition. No other datagram shows that the
            peer is there: anyone may send one.
        termination: How the connection ended, or None while it lives. Set before the last packets are sent.
        undelivered: True when `deliver_events` has more to deliver; other tasks should have their turn first.
        unfinished: True when `datagrams_to_send` has more to return at once; what it returned should leave first.
    """

    connection_id: bytes
    client_certificate: bytes | None = None
    heard_at: float
    termination: Termination | None
    unfinished: bool
    undelivered: bool

    @property
    @abc.abstractmethod
    def idle_timeout(self) -> float:
        """Seconds of silence that end the connection: the smaller of both sides' settings (RFC 9000, section 10.1)."""

    @abc.abstractmethod
    def answer_due(self) -> float:
        """Return when the answer to what was first sent after the last packet of the peer must have come.

        It is the engine's own idle timeout when nothing was sent.
        """

    @abc.abstractmethod
    def connect(self, address: Address, now: float) -> None:
        """Start the handshake of a client."""

    @abc.abstractmethod
    def receive_datagram_untrusted(self, data: bytes, address: Address, now: float) -> None:
        """Read a UDP payload."""

    @property
    @abc.abstractmethod
    def established(self) -> bool:
        """True once a packet of the peer was authenticated, be it only with the keys of the first flight."""

    @abc.abstractmethod
    def deliver_events(self) -> None:
        """Call the streams and the handler with what the datagrams and timeouts since the last call brought.

        When that is far more than has arrived, as gaps were filled, it is only some of it; see `undelivered`.
        """

    @abc.abstractmethod
    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the UDP payloads that may leave now, and where to; when there are many, the first of them."""

    @abc.abstractmethod
    def has_work(self, now: float) -> bool:
        """Return False when `datagrams_to_send` would surely return nothing."""

    @abc.abstractmethod
    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` wants to be called; None once the connection has ended."""

    @abc.abstractmethod
    def handle_timeout(self, now: float) -> None:
        """Act on the time that has passed."""

    @abc.abstractmethod
    def ping(self) -> None:
        """Ask the peer for an acknowledgement."""

    @abc.abstractmethod
    def close(self, code: int, reason: str, *, application: bool = True) -> None:
        """End the connection; the next `datagrams_to_send` informs the peer."""

    @abc.abstractmethod
    def release(self) -> None:
        """Drop what the connection held, once it has ended and nothing is left to send.

        Nothing may be received or sent afterwards. What is asked of streams does nothing, and numbers stay as they are.
        Without it a connection would be one ring of references, and work for the garbage collector.
        """

    @abc.abstractmethod
    def open_stream(self, *, unidirectional: bool) -> int | None:
        """Return the id of a new stream, or None at the peer's limit."""

    @property
    @abc.abstractmethod
    def bidi_left(self) -> int:
        """Bidirectional streams that the peer allows now."""

    @abc.abstractmethod
    def send_state(self) -> tuple[int, int, int, bool]:
        """Return the state of the congestion controller and of the send buffers.

        Returns:
            The bytes that may be in flight; how many of these may leave now, never below 0; the bytes written that were
            in no packet yet: datagrams, and of each stream what the peer's credit allows; and `send_full`.
        """

    @property
    @abc.abstractmethod
    def send_held(self) -> int:
        """Bytes that the streams hold: what was written and not acknowledged, and what an open stream costs."""

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
        """Queue a datagram. Return False when an older one was thrown away for it."""

    @abc.abstractmethod
    def statistics(self) -> TransportStatistics:
        """Return what the engine counts; the rest of the fields are zero."""


@attrs.frozen
class LongHeader:
    """The long header of a packet, read before anything is decrypted (RFC 9000, section 17.2)."""

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
    """Makes engines, and the packets that a listener sends without one. A listener has one of its own."""

    def client(self, settings: ClientSettings, handler: EngineHandler) -> Engine:
        """Return an engine for `connect`."""
        ...

    def server(
        self,
        settings: ServerSettings,
        handler: EngineHandler,
        header: LongHeader,
        validated: Validated | None,
    ) -> Engine:
        """Return an engine for the connection that a client's first packet asks for."""
        ...

    def parse_header_untrusted(self, data: bytes) -> LongHeader | None:
        """Return a datagram's first long header, or None when it has none that makes sense."""
        ...

    def supports(self, version: int) -> bool:
        """Return whether a QUIC version is spoken."""
        ...

    def version_negotiation(self, header: LongHeader) -> bytes:
        """Return the answer to a packet of another QUIC version."""
        ...

    def retry(self, header: LongHeader, address: Address, now: float) -> bytes:
        """Return a Retry packet, whose token proves the client's address when it comes back."""
        ...

    def refusal(self, header: LongHeader, reason: str) -> bytes:
        """Return the packet that refuses the connection that a client's first packet asks for (CONNECTION_REFUSED).

        It is shorter than any first packet.
        """
        ...

    def check_token_untrusted(self, header: LongHeader, address: Address, now: float) -> Validated | None:
        """Return what a token proves, or None when it proves nothing."""
        ...
