"""The two sides of a stream: the handler above it, the connection below it, and what every stream has in common.

`StreamHandler` is called as things happen on a stream. `StreamBackend` is what a stream asks of the connection that
carries it. `AnyStream` is the base of `ReceiveStream`, `SendStream` and `BidiStream`.

A handler is called synchronously, from the task that read the socket: the session cannot afford a task for each
stream. It must be quick, must not block and must not raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from .code_mapping import PLAIN_CODES, CodeMapping

if TYPE_CHECKING:
    from ..errors import MoqtError


def is_client_initiated(stream_id: int) -> bool:
    """Return whether the client opened a stream (RFC 9000, section 2.1)."""
    return not stream_id & 1


def is_unidirectional(stream_id: int) -> bool:
    """Return whether only one side sends on a stream (RFC 9000, section 2.1)."""
    return bool(stream_id & 2)


class StreamHandler:
    """Called with what happens on one stream. Every method has a default that does nothing.

    Attributes:
        keeps_after_reset: True for a handler that holds on to bytes after a reset: the peer gets no credit for them
            before `consumed` or `stop`. Otherwise a reset gives back what was not consumed.
    """

    __slots__ = ()

    keeps_after_reset: ClassVar[bool] = False

    def data_received(self, data: bytes, fin: bool) -> None:
        """Called when bytes arrived, in order. Credit for them returns to the peer by `ReceiveStream.consumed`.

        Args:
            data: The bytes; may be empty when `fin` is set.
            fin: True when the peer finished the stream and nothing more will come.
        """

    def reset_received(self, code: int) -> None:
        """Called when the peer reset its sending half; nothing more will come."""

    def stop_received(self, code: int) -> None:
        """Called when the peer refuses to read our sending half (STOP_SENDING); the transport has reset it."""

    def send_ready(self) -> None:
        """Called when the send buffer, which had been full, has room again."""

    def send_finished(self) -> None:
        """Called when everything written on the stream, FIN included, has reached the peer."""

    def connection_lost(self, error: MoqtError) -> None:
        """Called when the connection has ended, and with it the stream."""


class StreamBackend(Protocol):
    """What a stream asks of the connection that carries it. No method may wait, or fail for a stream that ended.

    Attributes:
        send_high: Bytes in a send buffer at which the stream stops being writable.
    """

    send_high: int

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Queue bytes, and FIN."""

    def stream_buffered(self, stream_id: int) -> int:
        """Return the bytes that were queued and are not acknowledged."""
        ...

    def stream_held_up(self, stream_id: int) -> bool:
        """Return True when queued bytes could not leave, although they had the chance."""
        ...

    def stream_room(self, stream_id: int) -> int:
        """Return how many bytes may be queued now: up to `send_high`, and to the peer's credit for the stream."""
        ...

    @property
    def send_full(self) -> bool:
        """True while all streams together hold about `Limits.send_buffer`."""
        ...

    def stream_watch(self, stream_id: int) -> None:
        """Call `deliver_send_ready` once, when there is room again and the buffer is below half of `send_high`."""

    def stream_keep_prefix(self, stream_id: int, size: int) -> None:
        """Let the first bytes that are written arrive even if the stream is reset."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Reset the stream with a code as it stands on the wire."""

    def stream_stop(self, stream_id: int, code: int) -> None:
        """Send STOP_SENDING with a code as it stands on the wire."""

    def stream_consumed(self, stream_id: int, count: int) -> None:
        """Give the peer credit for this many bytes, on the stream and on the connection."""

    def stream_done(self, stream_id: int) -> None:
        """Let the peer open another stream: the receiving half has ended and all of it was consumed."""


class AnyStream:
    """A stream of any kind: what its two halves share.

    Its connection calls the `deliver_*` methods as the peer acts. A half that the stream lacks has ended: what concerns
    it does nothing.

    Attributes:
        stream_id: The number of the stream in QUIC's scheme (RFC 9000, section 2.1).
        codes: How the stream's error codes are written on the wire.
    """

    def __init__(self, backend: StreamBackend, stream_id: int, codes: CodeMapping = PLAIN_CODES) -> None:
        self.stream_id = stream_id
        self.codes = codes
        self._backend = backend
        self._handler: StreamHandler | None = None
        self._error: MoqtError | None = None
        # True once a later handler has to be called with something that arrived before it.
        self._arrived_before = False

    @property
    def handler(self) -> StreamHandler | None:
        """What is called as things happen on the stream; None while what arrives waits for `receive_some`.

        A new handler is called at once, in order, with what arrived before.
        """
        return self._handler

    @handler.setter
    def handler(self, handler: StreamHandler | None) -> None:
        self._handler = handler
        if handler is not None:
            if self._arrived_before:
                self._hand_over(handler)
            if self._error is not None:
                handler.connection_lost(self._error)

    def map_codes(self, mapping: CodeMapping) -> None:
        """Apply a mapping to the stream's error codes, on top of those that it has."""
        self.codes = mapping.over(self.codes)

    @property
    def ended(self) -> bool:
        """True once each half that the stream has is ended."""
        return True

    def cancel(self, wire_code: int) -> None:
        """Reset and stop what is still open of the stream, with a code as it stands on the wire."""

    def _hand_over(self, handler: StreamHandler) -> None:
        """Call a new handler with what arrived before it."""

    def _wake(self) -> None:
        """Wake the tasks that wait on the stream."""

    # -- from the connection -------------------------------------------------------------------------------

    def deliver(self, data: bytes, fin: bool) -> None:
        """Called when bytes arrived in order, and with whether they were the last."""

    def deliver_reset(self, wire_code: int, droppable: int | None = None) -> None:
        """Called when the peer reset its half, and the bytes that arrive in spite of it are delivered.

        Args:
            wire_code: The code as it stands on the wire.
            droppable: How many of the last bytes that were delivered need not be read; None for all.
        """

    def deliver_stop(self, wire_code: int) -> None:
        """Called when STOP_SENDING arrived; the engine has answered it with a reset of its own."""

    def deliver_send_ready(self) -> None:
        """Called when the send buffer has room again."""

    def deliver_send_finished(self) -> None:
        """Called when the peer has acknowledged all that was written, FIN included."""

    def deliver_released(self) -> None:
        """Called when both halves have ended on the wire, and everything was delivered.

        The stream and its handler refer to each other: parted here, they cost the garbage collector nothing.
        """
        self._handler = None

    def deliver_lost(self, error: MoqtError) -> None:
        """Called when the connection has ended."""
        if self._error is not None:
            return
        self._error = error
        self._wake()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)

    def deliver_session_lost(self, error: MoqtError) -> None:
        """Called when the session that the stream belongs to has ended, on a connection that goes on.

        What arrives from now on is dropped. `cancel` informs the peer.
        """
        self.deliver_lost(error)
