"""The half of a stream that the peer sends on.

Theory of operation
===================

States, with the names of RFC 9000, section 3.2:

    RECV ──FIN──▶ DATA_RECVD ──▶ DATA_READ
      │
      └──RESET_STREAM──▶ RESET_RECVD ──▶ RESET_READ

- `RECV`: more may come. RFC 9000's Size Known is part of it: the engine puts packets in order, and delivers FIN only
  together with the last byte.
- `DATA_RECVD`, `RESET_RECVD`: the peer ended the half. The application has not learned of it.
- `DATA_READ`, `RESET_READ`: the application has learned of it: a handler by its callback, a reader by the return of
  `receive_some`. A half that is being refused needs to learn of nothing, and goes there at once.

Refusing is no state of RFC 9000, and none here: after STOP_SENDING the half stays in `RECV` until the peer's FIN or
reset arrives. `_refused` says that what still arrives is dropped; `_stopped` that STOP_SENDING was this side's own
wish, so that a reader gets `trio.ClosedResourceError`. A half whose session ended is refused without having been
stopped.

The credit invariant: every byte that arrived is counted in `_unconsumed`, and leaves it exactly once, with a call of
`StreamBackend.stream_consumed`. Bytes leave one by one as the application consumes them (`consumed`, or `receive_some`
for its own), or all at once when it will not read them (`stop`, a reset, the end of the session). So a reader that
pauses stops its sender, and one that leaves does not take the connection's credit with it.

The peer may open another stream once the half has ended and nothing of it is unconsumed. `_retire` reports that once.
The end alone is not enough: an application that accepts no streams would have its queue filled by a peer that opens
and resets them.

Who calls what: the task that reads the socket calls `deliver*`, and through them the handler. The application's task
calls all else. Nothing here waits but `receive_some`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from ..errors import StreamReset, fresh
from .code_mapping import PLAIN_CODES, CodeMapping
from .interface import AnyStream, StreamBackend, StreamHandler

if TYPE_CHECKING:
    from ..errors import MoqtError


class ReceiveState(enum.Enum):
    """The states of a receiving half (RFC 9000, section 3.2)."""

    RECV = "Recv"
    DATA_RECVD = "Data Recvd"
    DATA_READ = "Data Read"
    RESET_RECVD = "Reset Recvd"
    RESET_READ = "Reset Read"

    # Its members are looked up for every stream; the hash of an Enum is a function in Python.
    __hash__ = object.__hash__


_RECV = ReceiveState.RECV
_DATA_RECVD = ReceiveState.DATA_RECVD
_DATA_READ = ReceiveState.DATA_READ
_RESET_RECVD = ReceiveState.RESET_RECVD
_RESET_READ = ReceiveState.RESET_READ

TRANSITIONS: Final[dict[ReceiveState, tuple[ReceiveState, ...]]] = {
    _RECV: (_DATA_RECVD, _RESET_RECVD),
    _DATA_RECVD: (_DATA_READ,),
    # A handler may put back what it was given, for the next one to read the end once more.
    _DATA_READ: (_DATA_RECVD,),
    _RESET_RECVD: (_RESET_READ,),
    _RESET_READ: (),
}
"""From each state to those that may follow it."""


class ReceiveStream(AnyStream):
    """A stream that the peer sends on; also the receiving half of a `BidiStream`.

    Attributes:
        kept_after_reset: How many of the bytes that were not consumed when the peer reset the half it had promised.
    """

    def __init__(self, backend: StreamBackend, stream_id: int, codes: CodeMapping = PLAIN_CODES) -> None:
        super().__init__(backend, stream_id, codes)
        self._receive_state = _RECV
        self._refused = False
        self._stopped = False
        self._retired = False
        self._chunks: deque[bytes] = deque()
        self._unconsumed = 0
        self._reset_code = 0
        self.kept_after_reset = 0
        self._reader: trio.Event | None = None
        self._reading = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream_id} receive={self._receive_state.value}>"

    @property
    def receive_ended(self) -> bool:
        """True once the peer's FIN was read or its reset arrived, or this side stopped the half."""
        return self._refused or not (self._receive_state is _RECV or self._receive_state is _DATA_RECVD)

    @property
    def ended(self) -> bool:
        """True once the half has ended."""
        return self.receive_ended

    @property
    def unconsumed(self) -> int:
        """Bytes that arrived, and for which the peer has got no credit yet."""
        return self._unconsumed

    def _move_receive(self, state: ReceiveState) -> None:
        if state not in TRANSITIONS[self._receive_state]:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self._receive_state = state

    # -- from the connection -------------------------------------------------------------------------------

    def deliver(self, data: bytes, fin: bool) -> None:
        """Called when bytes arrived in order, and with whether they were the last."""
        if self._refused:
            if data:
                self._backend.stream_consumed(self.stream_id, len(data))
            if fin:
                self._move_receive(_DATA_RECVD)
                self._read_end()
            return
        self._unconsumed += len(data)
        if fin:
            self._move_receive(_DATA_RECVD)
        if self._handler is not None:
            if not fin:
                self._handler.data_received(data, False)
            else:
                self._move_receive(_DATA_READ)
                self._handler.data_received(data, True)
                self._retire()
            return
        self._arrived_before = True
        if data:
            self._chunks.append(data)
        self._wake_reader()

    def deliver_reset(self, wire_code: int, droppable: int | None = None) -> None:
        """Called when the peer reset the half. Bytes that were not read are dropped, as far as they may be."""
        if self._receive_state is not _RECV:
            return
        self._move_receive(_RESET_RECVD)
        self._reset_code = self.codes.from_wire(wire_code)
        self._arrived_before = True
        if droppable is not None and not self._refused:
            self.kept_after_reset = max(0, self._unconsumed - droppable)
        handler = self._handler
        if handler is None:
            self._drop_after_reset()
        elif not handler.keeps_after_reset:
            self._return_credit()
        if self._refused:
            self._read_end()
        elif handler is not None:
            self._move_receive(_RESET_READ)
            handler.reset_received(self._reset_code)
            self._retire()
        else:
            self._wake_reader()

    def _drop_after_reset(self) -> None:
        dropped = self._unconsumed - self.kept_after_reset
        if dropped > 0:
            kept = b"".join(self._chunks)[:-dropped]
            self._chunks = deque([kept] if kept else ())
            self._unconsumed -= dropped
            self._backend.stream_consumed(self.stream_id, dropped)

    def deliver_session_lost(self, error: MoqtError) -> None:
        """Called when the session that the stream belongs to has ended, on a connection that goes on."""
        if self._error is not None:
            return
        if self._receive_state is _RECV:
            self._refused = True
        # What has arrived can still be read, but the peer gets its credit now: the reader may never come.
        self._return_credit()
        self._retire()
        super().deliver_session_lost(error)

    # -- the handler ---------------------------------------------------------------------------------------

    def _hand_over(self, handler: StreamHandler) -> None:
        state = self._receive_state
        if state is _RESET_RECVD or state is _RESET_READ:
            if self._chunks:
                data = b"".join(self._chunks)
                self._chunks.clear()
                handler.data_received(data, False)
                if self._handler is not handler:
                    # It put them back, for one that has been called by now, or is to come.
                    return
            handler.reset_received(self._reset_code)
            self._read_end()
        elif self._chunks or state is _DATA_RECVD:
            data = b"".join(self._chunks)
            self._chunks.clear()
            if state is _DATA_RECVD:
                self._move_receive(_DATA_READ)
            fin = state is not _RECV
            handler.data_received(data, fin)
            if fin:
                self._retire()

    def unread(self, data: bytes, fin: bool) -> None:
        """Detach the handler and put back what it was just given, so that the next handler or reader gets it first.

        Args:
            data: Bytes that were delivered and are not consumed.
            fin: True when the end of the stream was delivered as well.
        """
        self._handler = None
        self._arrived_before = True
        if data:
            self._chunks.appendleft(data)
        if fin:
            self._move_receive(_DATA_RECVD)

    # -- the application -----------------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; return b"" once the peer has finished the stream.

        Credit for the bytes returns to the peer. Cancelling loses nothing.

        Raises:
            StreamReset: The peer reset the stream.
            SessionClosed: The connection ended.
            trio.ClosedResourceError: This side stopped the stream.
            trio.BusyResourceError: Another task is receiving.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._reading = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._chunks:
                    return self._take(max_bytes)
                state = self._receive_state
                if state is _DATA_RECVD or state is _DATA_READ:
                    self._read_end()
                    return b""
                if self._error is not None:
                    raise fresh(self._error)
                # Before the peer's reset, which perhaps only answers our stop.
                if self._stopped:
                    raise trio.ClosedResourceError("this side stopped the stream")
                if state is not _RECV:
                    self._read_end()
                    raise StreamReset(self._reset_code)
                self._reader = trio.Event()
                await self._reader.wait()
        finally:
            self._reading = False

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._chunks.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self.consumed(len(data))
        return data

    def consumed(self, count: int) -> None:
        """Give the peer credit for bytes that a handler received and that were now used."""
        # A reset or a stop has returned the credit of everything; a handler that is slower must not return it again.
        count = min(count, self._unconsumed)
        if count > 0:
            self._unconsumed -= count
            self._backend.stream_consumed(self.stream_id, count)
            if self._receive_state is not _RECV:
                self._retire()

    def stop(self, code: int, *, keep_unread: bool = False) -> None:
        """Refuse everything that is still to come (STOP_SENDING). Does nothing once the half has ended.

        Args:
            code: The stream's code.
            keep_unread: True when what a handler received can still be read: its credit waits for `consumed`. Otherwise
                the peer gets credit for everything at once.
        """
        self._stop(self.codes.to_wire(code), keep_unread)

    def _stop(self, wire_code: int, keep_unread: bool) -> None:
        self._chunks.clear()
        if not keep_unread:
            self._return_credit()
        state = self._receive_state
        if state is _DATA_RECVD or state is _DATA_READ:
            self._read_end()
        elif state is not _RECV:
            self._stopped = True
            self._read_end()
        elif not self._stopped:
            self._stopped = self._refused = True
            self._wake_reader()
            if self._error is None:
                self._backend.stream_stop(self.stream_id, wire_code)

    def cancel(self, wire_code: int) -> None:
        """Stop the half if it is open, with a code as it stands on the wire."""
        if self._error is None:
            self._stop(wire_code, keep_unread=False)
        elif self._receive_state is _RECV and not self._stopped:
            # The session ended, and the connection goes on: what has arrived can still be read.
            self._stopped = True
            self._backend.stream_stop(self.stream_id, wire_code)

    # -- the end -------------------------------------------------------------------------------------------

    def _read_end(self) -> None:
        """Note that the application has learned how the half ended, or does not want to."""
        if self._receive_state is _DATA_RECVD:
            self._move_receive(_DATA_READ)
        elif self._receive_state is _RESET_RECVD:
            self._move_receive(_RESET_READ)
        self._retire()

    def _return_credit(self) -> None:
        if self._unconsumed > 0:
            count, self._unconsumed = self._unconsumed, 0
            self._backend.stream_consumed(self.stream_id, count)

    def _retire(self) -> None:
        if not (self._retired or self._unconsumed or self._receive_state is _RECV):
            self._retired = True
            self._backend.stream_done(self.stream_id)

    def _wake_reader(self) -> None:
        if self._reader is not None:
            self._reader.set()
            self._reader = None

    def _wake(self) -> None:
        self._wake_reader()
