"""ControlStream: passes a stream's bytes to its machine, and handles the events and the peer's mistakes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio

from ..codes import StreamCode
from ..errors import RemoteProtocolError, SessionClosed, StreamReset
from ..loggers import Logger
from ..transport.interface import StreamHandler

if TYPE_CHECKING:
    from ..errors import MoqtError
    from ..protocol.events import Event
    from ..protocol.machine import StreamMachine
    from ..transport.stream import BidiStream
    from .context import SessionContext

logger = Logger(__name__)


class _Resettable(Protocol):
    def reset(self, code: int) -> None: ...

    def stop(self, code: int) -> None: ...


def reset_and_stop(stream: _Resettable, code: int) -> None:
    """End both halves of a stream at once with the same code."""
    stream.reset(code)
    stream.stop(code)


def receive_events(machine: StreamMachine, data: bytes, fin: bool) -> tuple[list[Event], RemoteProtocolError | None]:
    """Return the events of some bytes, and the peer's mistake after them, if there is one."""
    try:
        return machine.receive_data(data, fin), None
    except RemoteProtocolError as mistake:
        return machine.partial_events, mistake


class ControlStream(StreamHandler):
    """Passes the bytes of one control stream to its machine, and handles the events.

    Credit returns as messages are read: they are bounded by `Limits.max_message` and kept as state, not as bytes. Few
    are read at once; see `Turns`.
    """

    def __init__(self, context: SessionContext, stream: BidiStream, machine: StreamMachine) -> None:
        self.context = context
        self.stream = stream
        self.machine = machine
        self._unreturned = 0

    def handle(self, event: Event) -> None:
        """Called for each event of the machine, in order."""
        raise NotImplementedError

    def failed(self, error: MoqtError) -> None:
        """Called when the stream has ended because of the peer's mistake or the connection's end."""

    def data_received(self, data: bytes, fin: bool) -> None:
        self.handle_all(*receive_events(self.machine, data, fin))
        if self.machine.unread:
            self.read_later(len(data))
        else:
            self.stream.consumed(len(data))

    def read_later(self, received: int) -> None:
        """Go on with the machine's messages later, and then return the credit of so many bytes."""
        self._unreturned += received
        self.context.turns.add(self)

    def go_on(self) -> None:
        """Called when it is the stream's turn: see `Turns`."""
        self.handle_all(*receive_events(self.machine, b"", False))
        if self.machine.unread:
            self.context.turns.add(self)
        else:
            count, self._unreturned = self._unreturned, 0
            self.stream.consumed(count)

    def reset_received(self, code: int) -> None:
        self.handle_all(self.machine.receive_reset(code))

    def stop_received(self, code: int) -> None:
        self.handle_all(self.machine.receive_stop(code))

    def connection_lost(self, error: MoqtError) -> None:
        self.machine.release()
        self.failed(error)

    def handle_all(self, events: list[Event], error: RemoteProtocolError | None = None) -> None:
        """Handle the events of some bytes, and then the peer's mistake after them, if there is one."""
        for event in events:
            self.handle(event)
        if error is not None:
            self._broken(error)

    def _broken(self, error: RemoteProtocolError) -> None:
        self.machine.release()
        if error.scope == "session":
            self.context.violated(error)
        else:
            logger.info("stream %d reset, the peer broke the protocol: %s", self.stream.stream_id, error)
            reset_and_stop(self.stream, error.code)
        self.failed(error)

    def cancel(self, code: int = StreamCode.CANCELLED) -> None:
        """End the stream from this side; a request is refused by a message, where the version has one."""
        refusal = self.machine.refusal(code)
        if refusal:
            # The requester may have left meanwhile, or the session.
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self.stream.write(refusal, fin=True)
            self.stream.stop(code)
        else:
            reset_and_stop(self.stream, code)
        self.machine.release()
