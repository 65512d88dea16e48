"""What every part of a running session shares: its connection, its protocol core and its nursery.

The stream owners build on this: `publisher.py` for what the peer asks, `request.py` for what we ask. `session_api.py`
puts them together.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from ..codes import CodeSpace, StreamCode
from ..errors import GoingAway, MoqtError, RemoteProtocolError
from ..protocol.machine import events_before
from ..transport.abc import AnyStream, BidiStream, Connection, StreamHandler
from ..transport.stream import CodeMapping, Stream
from .publisher.scheduler import SendScheduler
from .untyped import PendingStreams

if TYPE_CHECKING:
    from ..limits import Limits
    from ..protocol.core import SessionCore
    from ..protocol.events import Event
    from ..protocol.machine import StreamMachine
    from .subscriber.group_queue import GroupQueue

logger = logging.getLogger("moqt_trio")

Ts = TypeVarTuple("Ts")


class SessionContext:
    """One session's connection, core, nursery and limits.

    Attributes:
        connection: What carries the session.
        core: The sans-IO state.
        nursery: Owns every task of the session.
        limits: The bounds.
        going_away: Set once the peer asked us to leave.
        setup_received: Set once the peer's SETUP is known.
        goaway_uri: Where the peer asked us to go; None while it has not asked.
        subscriptions: Where the groups of our subscriptions go, by the subscription's id.
        scheduler: Says which of the subscriptions that we serve may write next.
        untyped: The peer's streams whose type has not arrived.
    """

    def __init__(self, connection: Connection, core: SessionCore, nursery: trio.Nursery, limits: Limits) -> None:
        self.connection = connection
        self.core = core
        self.nursery = nursery
        self.limits = limits
        self.going_away = trio.Event()
        self.setup_received = trio.Event()
        self.goaway_uri: str | None = None
        self.subscriptions: dict[int, GroupQueue] = {}
        self.scheduler = SendScheduler(connection)
        self.untyped = PendingStreams(limits.setup_timeout)
        self.start(self.untyped.expire_forever)

    def start(self, function: Callable[[*Ts], Awaitable[object]], *arguments: *Ts) -> None:
        """Starts a task of the session."""
        self.nursery.start_soon(function, *arguments)

    def close(self, code: int, reason: str = "") -> None:
        """Starts closing the session, with a code of this library's numbers."""
        self.connection.close(self.core.dialect.codes.to_wire("session", code), reason)

    def map_codes(self, stream: AnyStream, space: CodeSpace) -> None:
        """Has a stream's codes spelled as the version numbers them on streams of this kind."""
        table = self.core.dialect.codes
        if space not in table.numbers or not isinstance(stream, Stream):
            return
        below = stream.codes
        stream.codes = CodeMapping(
            lambda code: below.to_wire(table.to_wire(space, code)),
            lambda number: table.from_wire(space, below.from_wire(number)),
        )

    def check_open(self) -> None:
        """Raises how the session ended, if it has ended."""
        error = self.connection.closed
        if error is not None:
            raise error.with_traceback(None)

    def check_may_ask(self) -> None:
        """Raises why nothing new can be asked for: `SessionClosed`, or `GoingAway` after the peer's GOAWAY."""
        self.check_open()
        if self.goaway_uri is not None:
            raise GoingAway(self.goaway_uri)

    def violated(self, error: RemoteProtocolError) -> None:
        """Ends the session after a mistake of the peer that breaks all of it."""
        logger.warning("session closed, the peer broke the protocol: %s", error)
        self.close(error.code, str(error))


class _Resettable(Protocol):
    def reset(self, code: int) -> None: ...

    def stop(self, code: int) -> None: ...


def give_up(stream: _Resettable, code: int) -> None:
    """Ends both halves of a stream at once with the same code."""
    stream.reset(code)
    stream.stop(code)


class ControlStream(StreamHandler):
    """Feeds what arrives on one control stream to its machine, and hands the events on.

    Credit returns at once: control messages are bounded by `Limits.max_message` and kept as state, not as bytes.
    """

    def __init__(self, context: SessionContext, stream: BidiStream, machine: StreamMachine) -> None:
        self.context = context
        self.stream = stream
        self.machine = machine

    def handle(self, event: Event) -> None:
        """Takes one event."""
        raise NotImplementedError

    def failed(self, error: MoqtError) -> None:
        """The stream is over because of the peer's mistake or the connection's end."""

    def data_received(self, data: bytes, fin: bool) -> None:
        try:
            events = self.machine.receive_data(data, fin)
        except RemoteProtocolError as error:
            self._handle_all(events_before(error))
            self._broken(error)
            return
        finally:
            self.stream.consumed(len(data))
        self._handle_all(events)

    def reset_received(self, code: int) -> None:
        try:
            events = self.machine.receive_reset(code)
        except RemoteProtocolError as error:
            self._broken(error)
            return
        self._handle_all(events)

    def stop_received(self, code: int) -> None:
        try:
            events = self.machine.receive_stop(code)
        except RemoteProtocolError as error:
            self._broken(error)
            return
        self._handle_all(events)

    def connection_lost(self, error: MoqtError) -> None:
        self.machine.release()
        self.failed(error)

    def _handle_all(self, events: list[Event]) -> None:
        for event in events:
            self.handle(event)

    def _broken(self, error: RemoteProtocolError) -> None:
        self.machine.release()
        if error.scope == "session":
            self.context.violated(error)
        else:
            logger.info("stream %d given up, the peer broke the protocol: %s", self.stream.stream_id, error)
            give_up(self.stream, error.code)
        self.failed(error)

    def cancel(self, code: int = StreamCode.CANCELLED) -> None:
        """Gives the stream up from this side."""
        give_up(self.stream, code)
        self.machine.release()
