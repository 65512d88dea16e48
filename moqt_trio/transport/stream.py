"""The stream that every transport uses: buffers, half-close rules, waiting, and the hand-over to a handler.

A transport's driver calls the `deliver_*` methods as the peer acts, and implements `StreamBackend` for what goes
the other way. Everything here is synchronous but the waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from ..codes import stream_code_from_http3, stream_code_to_http3
from ..errors import StreamReset
from .abc import BidiStream, StreamHandler

if TYPE_CHECKING:
    from ..errors import MoqtError


class StreamBackend(Protocol):
    """What a stream asks of the connection that carries it. No method may wait, or fail for a stream that ended."""

    send_high: int

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Queues bytes, and FIN."""

    def stream_buffered(self, stream_id: int) -> int:
        """Returns the bytes that were queued and are not acknowledged."""
        ...

    def stream_held_up(self, stream_id: int) -> bool:
        """Returns True when queued bytes could not leave, although they had the chance."""
        ...

    def stream_watch(self, stream_id: int) -> None:
        """Asks for one `deliver_send_ready` once the buffer falls below half of `send_high`."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Sends RESET_STREAM with a code as it stands on the wire."""

    def stream_stop(self, stream_id: int, code: int) -> None:
        """Sends STOP_SENDING with a code as it stands on the wire."""

    def stream_consumed(self, stream_id: int, count: int) -> None:
        """Gives the peer credit for this many bytes, on the stream and on the connection."""

    def stream_done(self, stream_id: int) -> None:
        """The receiving half has ended and all of it was consumed: the peer may open another stream."""


@attrs.frozen
class CodeMapping:
    """How stream error codes are spelled on the wire.

    Attributes:
        to_wire: From a stream code to the QUIC application error code.
        from_wire: The other way.
    """

    to_wire: Callable[[int], int]
    from_wire: Callable[[int], int]


def _to_plain(code: int) -> int:
    # The largest that a varint holds, for the same reason as below.
    return min(code, (1 << 62) - 1)


def _from_plain(codepoint: int) -> int:
    return codepoint


def _from_http3(codepoint: int) -> int:
    code = stream_code_from_http3(codepoint)
    return codepoint if code is None else code


def _to_http3(code: int) -> int:
    # The range has room for 32 bits; a larger code becomes the largest, as a reset may not fail.
    return stream_code_to_http3(min(code, 0xFFFFFFFF))


PLAIN_CODES = CodeMapping(_to_plain, _from_plain)
HTTP3_CODES = CodeMapping(_to_http3, _from_http3)
"""How WebTransport spells stream codes; a codepoint outside its range stays as it is."""


class Stream(BidiStream):
    """One stream; see `abc.BidiStream`. A unidirectional stream has one of its halves ended from the start."""

    __slots__ = (
        "_backend",
        "_chunks",
        "_error",
        "_fin_received",
        "_fin_sent",
        "_handler",
        "_receive_busy",
        "_receive_code",
        "_receive_over",
        "_receive_waiter",
        "_reset_sent",
        "_send_busy",
        "_send_code",
        "_send_waiters",
        "_stopped",
        "_unconsumed",
        "_watching",
        "codes",
        "readable",
        "stream_id",
        "writes",
    )

    def __init__(
        self,
        backend: StreamBackend,
        stream_id: int,
        *,
        can_receive: bool,
        can_send: bool,
        codes: CodeMapping = PLAIN_CODES,
    ) -> None:
        self._backend = backend
        self.stream_id = stream_id
        self.readable = can_receive
        self.writes = can_send
        self.codes = codes
        self._handler: StreamHandler | None = None
        self._chunks: deque[bytes] = deque()
        self._unconsumed = 0
        self._fin_received = False
        self._receive_code: int | None = None
        self._stopped = not can_receive
        self._receive_over = not can_receive
        self._receive_waiter: trio.Event | None = None
        self._receive_busy = False
        self._fin_sent = not can_send
        self._reset_sent = False
        self._send_code: int | None = None
        self._send_waiters: trio.Event | None = None
        self._send_busy = False
        self._watching = False
        self._error: MoqtError | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id} received={self.receive_ended} sent={self.send_ended}>"

    # -- from the driver -----------------------------------------------------------------------------------

    def deliver_data(self, data: bytes, fin: bool) -> None:
        """Takes bytes that arrived in order, and whether they were the last."""
        if self._receive_over:
            if data:
                self._backend.stream_consumed(self.stream_id, len(data))
            if fin:
                self._fin_received = True
                self._retire()
            return
        self._unconsumed += len(data)
        if fin:
            self._fin_received = True
        if self._handler is not None:
            if fin:
                self._receive_over = True
            self._handler.data_received(data, fin)
            if fin:
                self._retire()
            return
        if data:
            self._chunks.append(data)
        self._wake_receiver()

    def deliver_reset(self, wire_code: int) -> None:
        """Takes a RESET_STREAM. Bytes that were not read are dropped, as QUIC allows."""
        if self._fin_received or self._receive_code is not None:
            return
        self._receive_code = self.codes.from_wire(wire_code)
        told = self._receive_over
        self._receive_over = True
        self._chunks.clear()
        if self._handler is None or not self._handler.keeps_after_reset:
            self._release()
        if self._handler is not None:
            if not told:
                self._handler.reset_received(self._receive_code)
            self._retire()
        elif told:
            self._retire()
        else:
            # Not retired before somebody has seen it: else a peer could fill the queue of new streams with resets.
            self._wake_receiver()

    def deliver_stop(self, wire_code: int) -> None:
        """Takes a STOP_SENDING; the engine has answered it with a reset of its own."""
        if self._send_code is not None or self._reset_sent or not self.writes:
            return
        self._send_code = self.codes.from_wire(wire_code)
        self._wake_senders()
        if self._handler is not None:
            self._handler.stop_received(self._send_code)

    def deliver_send_ready(self) -> None:
        """Takes the news that the send buffer has room again."""
        self._watching = False
        self._wake_senders()
        if self._handler is not None:
            self._handler.send_ready()

    def deliver_send_finished(self) -> None:
        """Takes the news that the peer has acknowledged all that was written, FIN included."""
        if self._handler is not None and not self._reset_sent and self._send_code is None:
            self._handler.send_finished()

    def deliver_gone(self) -> None:
        """Takes the news that both halves are over on the wire, and everything was delivered.

        The stream and its handler hold each other: let go here, they cost the garbage collector nothing.
        """
        self._handler = None

    def deliver_lost(self, error: MoqtError) -> None:
        """Takes the end of the connection."""
        if self._error is not None:
            return
        self._error = error
        self._wake_receiver()
        self._wake_senders()
        if self._handler is not None:
            self._handler.connection_lost(error)

    def deliver_abandoned(self, error: MoqtError) -> None:
        """Takes the end of the session that the stream belongs to, on a connection that goes on.

        What arrives from now on is dropped. The peer hears of it by `give_up`.
        """
        if self._error is not None:
            return
        if not self._fin_received:
            self._receive_over = True
        # What has arrived can still be read, but the peer gets its credit now: perhaps nobody will.
        self._release()
        self._retire()
        self.deliver_lost(error)

    def give_up(self, wire_code: int) -> None:
        """Resets and stops what is still open of an abandoned stream, with a code as it stands on the wire."""
        if self.writes and not self._reset_sent and self._send_code is None:
            self._reset_sent = True
            self._backend.stream_reset(self.stream_id, wire_code)
        if not self._stopped and not self._fin_received and self._receive_code is None:
            self._stopped = True
            self._backend.stream_stop(self.stream_id, wire_code)

    # -- receiving -----------------------------------------------------------------------------------------

    @property
    def handler(self) -> StreamHandler | None:
        return self._handler

    @handler.setter
    def handler(self, handler: StreamHandler | None) -> None:
        self._handler = handler
        if handler is None:
            return
        # A reset that came first has thrown the buffered bytes away, so it is all there is to tell.
        if self._receive_code is not None:
            handler.reset_received(self._receive_code)
            self._retire()
        elif self._chunks or (self._fin_received and not self._receive_over):
            data = b"".join(self._chunks)
            self._chunks.clear()
            if self._fin_received:
                self._receive_over = True
            handler.data_received(data, self._fin_received)
            if self._fin_received:
                self._retire()
        if self._send_code is not None:
            handler.stop_received(self._send_code)
        if self._error is not None:
            handler.connection_lost(self._error)

    def unread(self, data: bytes, fin: bool) -> None:
        """Detaches the handler and puts back what it was just given, so that the next handler or reader gets it first.

        Args:
            data: Bytes that were delivered and are not consumed.
            fin: True when the end of the stream was delivered as well.
        """
        self._handler = None
        if data:
            self._chunks.appendleft(data)
        if fin:
            self._receive_over = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._receive_busy:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receive_busy = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._chunks:
                    return self._take(max_bytes)
                if self._fin_received:
                    if not self._receive_over:
                        self._receive_over = True
                        self._retire()
                    return b""
                if self._error is not None:
                    raise self._error.with_traceback(None)
                # Before the peer's reset, which perhaps only answers our stop.
                if self._stopped:
                    raise trio.ClosedResourceError("this side stopped the stream")
                if self._receive_code is not None:
                    self._retire()
                    raise StreamReset(self._receive_code)
                self._receive_waiter = trio.Event()
                await self._receive_waiter.wait()
        finally:
            self._receive_busy = False

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._chunks.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self.consumed(len(data))
        return data

    def consumed(self, count: int) -> None:
        # A reset or a stop has returned the credit of everything; a handler that is slower must not return it again.
        count = min(count, self._unconsumed)
        if count > 0:
            self._unconsumed -= count
            self._backend.stream_consumed(self.stream_id, count)
            self._retire()

    def stop(self, code: int, *, keep_unread: bool = False) -> None:
        if self._stopped or self._fin_received or self._receive_code is not None:
            self._stopped = self._stopped or not self._fin_received
            self._chunks.clear()
            if not keep_unread:
                self._release()
            if self._fin_received and not self._receive_over:
                self._receive_over = True
            self._retire()
            return
        self._stopped = True
        self._receive_over = True
        self._chunks.clear()
        if not keep_unread:
            self._release()
        self._wake_receiver()
        if self._error is None:
            self._backend.stream_stop(self.stream_id, self.codes.to_wire(code))

    @property
    def receive_ended(self) -> bool:
        return self._receive_over or self._receive_code is not None

    def _release(self) -> None:
        if self._unconsumed > 0:
            count, self._unconsumed = self._unconsumed, 0
            self._backend.stream_consumed(self.stream_id, count)

    def _retire(self) -> None:
        # Reported once: `readable` falls when the peer is entitled to another stream.
        if self.readable and not self._unconsumed and (self._fin_received or self._receive_code is not None):
            self.readable = False
            self._backend.stream_done(self.stream_id)

    def _wake_receiver(self) -> None:
        if self._receive_waiter is not None:
            self._receive_waiter.set()
            self._receive_waiter = None

    # -- sending -------------------------------------------------------------------------------------------

    def write(self, data: bytes, fin: bool = False) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._send_code is not None:
            raise StreamReset(self._send_code)
        if self._fin_sent or self._reset_sent:
            raise trio.ClosedResourceError("this side finished or reset the stream")
        if fin:
            self._fin_sent = True
        self._backend.stream_write(self.stream_id, data, fin)

    @property
    def buffered(self) -> int:
        return self._backend.stream_buffered(self.stream_id)

    @property
    def held_up(self) -> bool:
        return self._error is None and self._backend.stream_held_up(self.stream_id)

    @property
    def writable(self) -> bool:
        if self._watching:
            return False
        if self._backend.stream_buffered(self.stream_id) < self._backend.send_high:
            return True
        # From here until the low mark the stream counts as full, so that a writer moves in large steps.
        self._watching = True
        self._backend.stream_watch(self.stream_id)
        return False

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._send_code is not None:
                raise StreamReset(self._send_code)
            if self._fin_sent or self._reset_sent:
                raise trio.ClosedResourceError("this side finished or reset the stream")
            if self.writable:
                return
            if self._send_waiters is None:
                self._send_waiters = trio.Event()
            await self._send_waiters.wait()

    async def send_all(self, data: bytes) -> None:
        if self._send_busy:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._send_busy = True
        try:
            await self.wait_writable()
            step = self._backend.send_high
            for start in range(0, len(data), step):
                if start:
                    await self.wait_writable()
                self.write(data[start : start + step])
        finally:
            self._send_busy = False

    def finish(self) -> None:
        if self._fin_sent or self._reset_sent or self._send_code is not None or self._error is not None:
            return
        self._fin_sent = True
        self._backend.stream_write(self.stream_id, b"", True)

    def reset(self, code: int) -> None:
        if self._reset_sent or self._send_code is not None or not self.writes:
            return
        self._reset_sent = True
        self._wake_senders()
        if self._error is None:
            self._backend.stream_reset(self.stream_id, self.codes.to_wire(code))

    @property
    def send_ended(self) -> bool:
        return self._fin_sent or self._reset_sent or self._send_code is not None

    def _wake_senders(self) -> None:
        if self._send_waiters is not None:
            self._send_waiters.set()
            self._send_waiters = None
