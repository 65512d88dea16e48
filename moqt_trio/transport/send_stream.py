"""The half of a stream that this side sends on.

Theory of operation
===================

States, with the names of RFC 9000, section 3.1:

    READY ──write──▶ SEND ──FIN──▶ DATA_SENT ──all acknowledged──▶ DATA_RECVD
      │               │               │
      └───────────────┴───────────────┴──reset, or the peer's STOP_SENDING──▶ RESET_SENT

RFC 9000's Reset Recvd, a reset that was acknowledged, makes no difference to anyone here and is left out. A half that
the peer stopped is in `RESET_SENT`, because the engine answers STOP_SENDING with a reset; `_stop_code` then tells the
writer whose doing it was.

The send buffer is the engine's, and nothing here bounds it: a writer looks at `writable` or `room` first. There is none
at `StreamBackend.send_high` bytes, and again only below half of that, when the backend calls `deliver_send_ready`: so a
writer moves in large steps. There is none either beyond the peer's credit for the stream: what it does not allow yet
would lie in the buffer for as long as the peer likes. `_full` is set in between.

Who calls what: the task that reads the socket calls `deliver*`, and through them the handler. The application's task
calls all else. Nothing here waits but `wait_writable`.
"""

from __future__ import annotations

import enum
from typing import Final

import trio

from ..errors import StreamReset, fresh
from .code_mapping import PLAIN_CODES, CodeMapping
from .interface import AnyStream, StreamBackend, StreamHandler


class SendState(enum.Enum):
    """The states of a sending half (RFC 9000, section 3.1)."""

    READY = "Ready"
    SEND = "Send"
    DATA_SENT = "Data Sent"
    DATA_RECVD = "Data Recvd"
    RESET_SENT = "Reset Sent"

    # Its members are looked up for every stream; the hash of an Enum is a function in Python.
    __hash__ = object.__hash__


_READY = SendState.READY
_SEND = SendState.SEND
_DATA_SENT = SendState.DATA_SENT
_DATA_RECVD = SendState.DATA_RECVD
_RESET_SENT = SendState.RESET_SENT

TRANSITIONS: Final[dict[SendState, tuple[SendState, ...]]] = {
    _READY: (_SEND, _DATA_SENT, _RESET_SENT),
    _SEND: (_DATA_SENT, _RESET_SENT),
    _DATA_SENT: (_DATA_RECVD, _RESET_SENT),
    _DATA_RECVD: (),
    _RESET_SENT: (),
}
"""From each state to those that may follow it."""


class SendStream(AnyStream):
    """A stream that this side sends on; also the sending half of a `BidiStream`."""

    def __init__(self, backend: StreamBackend, stream_id: int, codes: CodeMapping = PLAIN_CODES) -> None:
        super().__init__(backend, stream_id, codes)
        self._send_state = _READY
        self._stop_code: int | None = None
        self._full = False
        self._writers: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream_id} send={self._send_state.value}>"

    @property
    def send_ended(self) -> bool:
        """True once this side finished or reset the half, or the peer stopped it."""
        return not (self._send_state is _SEND or self._send_state is _READY)

    @property
    def ended(self) -> bool:
        """True once the half has ended."""
        return self.send_ended

    def _move_send(self, state: SendState) -> None:
        if state not in TRANSITIONS[self._send_state]:
            raise AssertionError(f"{self!r} cannot become {state.value}")
        self._send_state = state

    # -- from the connection -------------------------------------------------------------------------------

    def deliver_stop(self, wire_code: int) -> None:
        """Called when STOP_SENDING arrived; the engine has answered it with a reset of its own."""
        if self._stop_code is not None or self._send_state is _RESET_SENT:
            return
        self._stop_code = self.codes.from_wire(wire_code)
        self._arrived_before = True
        # The peer may stop what it has received as a whole: that changes no state, but the handler hears of it.
        if self._send_state is not _DATA_RECVD:
            self._move_send(_RESET_SENT)
        self._wake_writers()
        if self._handler is not None:
            self._handler.stop_received(self._stop_code)

    def deliver_send_ready(self) -> None:
        """Called when the send buffer has room again."""
        self._full = False
        self._wake_writers()
        if self._handler is not None:
            self._handler.send_ready()

    def deliver_send_finished(self) -> None:
        """Called when the peer has acknowledged all that was written, FIN included."""
        if self._send_state is not _DATA_SENT:
            return
        self._move_send(_DATA_RECVD)
        if self._handler is not None:
            self._handler.send_finished()

    # -- the handler ---------------------------------------------------------------------------------------

    def _hand_over(self, handler: StreamHandler) -> None:
        if self._stop_code is not None:
            handler.stop_received(self._stop_code)

    # -- the application -----------------------------------------------------------------------------------

    def write(self, data: bytes, fin: bool = False) -> None:
        """Queue bytes, all of them, at once. Look at `writable` first: nothing here limits the queue.

        Raises:
            StreamReset: The peer stopped the stream.
            SessionClosed: The connection ended.
            trio.ClosedResourceError: This side finished or reset the stream.
        """
        state = self._send_state
        if self._error is not None or not (state is _SEND or state is _READY):
            self._check_open()
        if fin:
            self._move_send(_DATA_SENT)
        elif state is _READY:
            self._send_state = _SEND
        self._backend.stream_write(self.stream_id, data, fin)

    def _check_open(self) -> None:
        if self._error is not None:
            raise fresh(self._error)
        if self._stop_code is not None:
            raise StreamReset(self._stop_code)
        if self.send_ended:
            raise trio.ClosedResourceError("this side finished or reset the stream")

    @property
    def buffered(self) -> int:
        """Bytes that wait in the send buffer: written, and not yet acknowledged by the peer."""
        return self._backend.stream_buffered(self.stream_id)

    @property
    def held_up(self) -> bool:
        """True when something written could not leave: the link or the peer's credit does not allow it yet."""
        return self._error is None and self._backend.stream_held_up(self.stream_id)

    @property
    def room(self) -> int:
        """Bytes that may be written: up to `Limits.send_high` in the send buffer, and to the peer's credit; 0 for none.

        It does not heed `Limits.send_buffer`: `Connection.send_allowance` does.
        """
        if self._full:
            return 0
        room = self._backend.stream_room(self.stream_id)
        if room > 0:
            return room
        self._full = True
        self._backend.stream_watch(self.stream_id)
        return 0

    @property
    def writable(self) -> bool:
        """True while there is `room`, and the connection's streams hold less than `Limits.send_buffer`."""
        if self._full:
            return False
        if self._backend.stream_room(self.stream_id) > 0 and not self._backend.send_full:
            return True
        self._full = True
        self._backend.stream_watch(self.stream_id)
        return False

    async def wait_writable(self) -> None:
        """Wait until `writable` holds; always a checkpoint. Raises what `write` raises."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            if self.writable:
                return
            if self._writers is None:
                self._writers = trio.Event()
            await self._writers.wait()

    def keep_prefix(self, size: int) -> None:
        """Let the first bytes that are written arrive even if the half is reset, as far as the peer grants credit.

        Args:
            size: How many; if fewer are written, those.
        """
        self._backend.stream_keep_prefix(self.stream_id, size)

    def finish(self) -> None:
        """End the half cleanly (FIN). Does nothing once it has ended."""
        if self._error is None and not self.send_ended:
            self._move_send(_DATA_SENT)
            self._backend.stream_write(self.stream_id, b"", True)

    def reset(self, code: int) -> None:
        """Give the half up (RESET_STREAM). Does nothing once it has been reset or the peer has it all."""
        if self._reset() and self._error is None:
            self._backend.stream_reset(self.stream_id, self.codes.to_wire(code))

    def cancel(self, wire_code: int) -> None:
        """Reset the half if it is open, with a code as it stands on the wire."""
        if self._reset():
            self._backend.stream_reset(self.stream_id, wire_code)

    def _reset(self) -> bool:
        if self._send_state is _RESET_SENT or self._send_state is _DATA_RECVD:
            return False
        self._move_send(_RESET_SENT)
        self._wake_writers()
        return True

    def _wake_writers(self) -> None:
        if self._writers is not None:
            self._writers.set()
            self._writers = None

    def _wake(self) -> None:
        self._wake_writers()
