"""RequestStreams: the virtual streams of requests that share one control stream (IETF drafts 14 to 16).

A virtual stream is a `BidiStream` whose backend is the control stream: its states, its credit, its waiting and its
handler are those of any stream. `protocol/ietf/control_stream.py` says which message belongs to which, and what a reset
becomes.

- Credit: what a message took of the control stream's window returns when its virtual stream's handler has consumed it.
  A message of which only a part has arrived is given its credit at once: it is no longer than 64 KiB.
- A peer that does not read: the messages of this side are bounded by the ids of requests. What the peer makes it write
  answers a request or an update, and each of these has taken an id of the peer's. So its limit is raised only while
  the control stream has room: beyond that, at most a window of requests is answered, and each is ended. What this side
  asks by itself, or announces, waits for room. Reading goes on: to stop it until there is room would end in a deadlock
  of two sides whose answers wait behind each other's requests, and GOAWAY, replies and MAX_REQUEST_ID with them.
- Writing: a virtual stream is writable while the control stream is. What is written there has no end of its own, so
  a virtual stream counts as delivered once the peer has acknowledged what was written up to its end.
- Requests of the peer: each takes a place, which is free again when the virtual stream was read to its end. Updates
  give theirs back at once, and on 16 a list, which has a stream of its own, when that is over.
- Requests of this side: they wait while the peer allows no more, and for its SETUP. An update that finds no id is due:
  it is written, as what has changed by then, before the requests that wait.

Until `admit`, a server answers nothing: it only reads.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ..errors import RemoteProtocolError, SessionClosed, StreamReset
from ..protocol.ietf.events import ListAnswered, RequestBytes, RequestsAllowed, RequestWithdrawn
from ..transport.interface import StreamHandler
from ..transport.stream import BidiStream
from ..wire.messages import Goaway, Setup
from .stream import ControlStream, receive_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import MoqtError
    from ..protocol.events import Event
    from ..protocol.ietf.control_stream import RequestsStream
    from .context import SessionContext

_CANCELLED = 1
_LEAST_RTT = 0.005
"""The least time, in seconds, after which acknowledgements are looked for: the measured round trip is 0 at first."""


class RequestStreams:
    """The virtual streams of one session; also their backend.

    Args:
        context: The session's.
        machine: The state of the control stream.
        opened: Called with each virtual stream that the peer opens.
        available: Called when this side may make further requests.
    """

    def __init__(
        self,
        context: SessionContext,
        machine: RequestsStream,
        opened: Callable[[BidiStream], None],
        available: Callable[[], None],
    ) -> None:
        self.send_high = context.limits.send_high
        self._context = context
        self._machine = machine
        self._opened = opened
        self._available = available
        self._control: SharedControl | None = None
        self._admitted = False
        self._streams: dict[int, BidiStream] = {}
        self._peers: set[int] = set()
        self._next_unnamed = -1
        self._watching: dict[int, None] = {}
        self._allowed = trio.Event()
        # What was finished, with how much had been written by then; it is delivered once that is acknowledged.
        self._written = 0
        self._delivering: deque[tuple[int, BidiStream]] = deque()
        machine.watch_ends(self._allow_more)

    # -- the control stream ----------------------------------------------------------------------------------

    def is_control_untrusted(self, first: int) -> bool:
        """Return whether a stream of the peer's is the control stream, by its first byte; else it is a request.

        Raises:
            RemoteProtocolError: It may be neither; it ends the session.
        """
        return self._machine.classify_untrusted(first, begun=self._control is not None) == "control"

    def begin(self, stream: BidiStream, rest: bytes = b"") -> None:
        """Begin with the control stream.

        Args:
            stream: The client's first stream.
            rest: What was read of it already, after the peer's SETUP.
        """
        self._control = control = SharedControl(self._context, stream, self._machine, self)
        if self._context.core.is_client:
            self._context.begin_control(stream)
        if self._machine.setup_received:
            self._context.setup_received.set()
        if rest:
            control.take_over(rest)
        stream.handler = control
        self._answer_setup()
        self._wake()

    def admit(self) -> None:
        """Let a server answer: its SETUP goes first."""
        self._admitted = True
        self._answer_setup()

    def _answer_setup(self) -> None:
        """Write a server's SETUP, once it is admitted and the client's has arrived."""
        context, control = self._context, self._control
        if context.core.is_client or not self._admitted or control is None or context.control_stream is not None:
            return
        if self._machine.setup_received:
            self.write(self._machine.setup(context.core.setup))
            context.begin_control(control.stream)
            self._allow_more()
            self._wake()

    def _allow_more(self) -> None:
        """Let the peer make further requests when it is time; after SETUP, which has the first limit."""
        if self._context.control_stream is not None and self._has_room:
            self.write(self._machine.allowance())

    @property
    def _has_room(self) -> bool:
        """True while the peer takes what is written; else `send_ready` is called once it does so again."""
        return self._control is not None and self._control.stream.room > 0

    @property
    def _may_ask(self) -> bool:
        return self._machine.allowed and self._context.control_stream is not None and self._has_room

    def write(self, data: bytes) -> None:
        """Write on the control stream; nothing once it or the session has ended."""
        if data and self._control is not None:
            self._written += len(data)
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self._control.stream.write(data)

    def handle(self, event: Event) -> None:
        """Called for each event of the control stream."""
        context = self._context
        match event:
            case RequestBytes():
                self._deliver(event)
            case RequestWithdrawn():
                self._withdraw(event.request_id)
            case RequestsAllowed():
                self._update_later()
                self._wake()
            case ListAnswered():
                context.peer_namespaces.answered(event.prefix)
            case Setup():
                context.setup_received.set()
                self._answer_setup()
            case Goaway():
                context.goaway_received.set()
                context.going_away.set()
            case _:
                pass

    def _deliver(self, event: RequestBytes) -> None:
        if event.opens:
            stream = self._streams[event.request_id] = BidiStream(self, event.request_id)
            self._peers.add(event.request_id)
            self._opened(stream)
        found = self._streams.get(event.request_id)
        if found is None or (event.update is not None and found.receive_ended):
            # This side holds nothing of it any more.
            self.consume(len(event.data))
            if event.update is not None:
                self.write(self._machine.refuse_update(event.update))
            return
        found.deliver(event.data, event.fin)
        if event.fin:
            self._release(found)

    def _withdraw(self, request_id: int) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.deliver_stop(_CANCELLED)
            stream.deliver_reset(_CANCELLED)
            self._release(stream)

    def _update_later(self) -> None:
        """Write the updates that found no id before, as far as the peer allows."""
        for update in self._machine.due_updates:
            stream = None if update.existing_id is None else self._streams.get(update.existing_id)
            if stream is not None and not stream.send_ended and (data := update.take_due()):
                stream.write(data)

    def consume(self, count: int) -> None:
        """Return credit for bytes of messages."""
        assert self._control is not None
        self._control.consume(count)

    def send_ready(self) -> None:
        """Called when the control stream has room again."""
        self._allow_more()
        self._wake()
        watching, self._watching = self._watching, {}
        for stream_id in watching:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.deliver_send_ready()

    def lost(self, error: MoqtError) -> None:
        """Called when the session has ended; calling it again does nothing."""
        streams, self._streams = self._streams, {}
        self._delivering.clear()
        for stream in streams.values():
            stream.deliver_lost(error)
        self._wake()

    # -- requests of this side -------------------------------------------------------------------------------

    async def wait_allowed(self) -> None:
        """Wait until the peer allows and reads a request, which is to be written before anything else is awaited.

        Raises:
            SessionClosed: The session ended.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._context.check_open()
            if self._may_ask:
                return
            await self._allowed.wait()

    def open(self) -> BidiStream:
        """Return a virtual stream for a request that is written at once."""
        stream_id, self._next_unnamed = self._next_unnamed, self._next_unnamed - 1
        stream = self._streams[stream_id] = BidiStream(self, stream_id)
        return stream

    @property
    def left(self) -> int:
        """Requests that the peer allows now."""
        return self._machine.left

    def open_nowait(self) -> BidiStream:
        """Return one, or raise `trio.WouldBlock` while the peer allows or reads no request."""
        if not self._may_ask:
            raise trio.WouldBlock
        return self.open()

    def _wake(self) -> None:
        self._allowed.set()
        self._allowed = trio.Event()
        self._available()

    # -- from the virtual streams, as `StreamBackend` has it ---------------------------------------------------

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        if data and stream_id < 0:
            stream = self._streams.pop(stream_id)
            stream_id = stream.stream_id = self._machine.open(data)
            self._streams[stream_id] = stream
        elif data:
            self._machine.sent(stream_id, data)
        self.write(data)
        if fin:
            self._finish(stream_id)

    def _finish(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self._delivering.append((self._written, stream))
        if len(self._delivering) == 1:
            self._context.start(self._watch_delivery)
        if self._machine.finish(stream_id) and not stream.receive_ended:
            stream.deliver(b"", True)
            self._release(stream)

    async def _watch_delivery(self) -> None:
        """Report each stream as delivered once what was written up to its end is acknowledged."""
        while self._delivering and self._control is not None:
            acknowledged = self._written - self._control.stream.buffered
            while self._delivering and self._delivering[0][0] <= acknowledged:
                self._delivering.popleft()[1].deliver_send_finished()
            if self._delivering:
                await trio.sleep(max(self._context.connection.statistics().rtt, _LEAST_RTT))

    def stream_buffered(self, stream_id: int) -> int:
        return 0 if self._control is None else self._control.stream.buffered

    def stream_held_up(self, stream_id: int) -> bool:
        return self._control is not None and self._control.stream.held_up

    def stream_room(self, stream_id: int) -> int:
        return 0 if self._control is None else self._control.stream.room

    @property
    def send_full(self) -> bool:
        return self._control is None or not self._control.stream.writable

    def stream_watch(self, stream_id: int) -> None:
        self._watching[stream_id] = None

    def stream_keep_prefix(self, stream_id: int, size: int) -> None:
        """Nothing: what was written to the control stream arrives."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        self._cancel(stream_id, code)

    def stream_stop(self, stream_id: int, code: int) -> None:
        self._cancel(stream_id, code)
        stream = self._streams.get(stream_id)
        if stream is not None:
            # What it still holds of the peer's is over.
            stream.deliver(b"", True)
            self._release(stream)

    def _cancel(self, stream_id: int, code: int) -> None:
        if stream_id >= 0:
            self.write(self._machine.cancel(stream_id, code))

    def stream_consumed(self, stream_id: int, count: int) -> None:
        self.consume(count)

    def stream_done(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        if stream_id in self._peers:
            self._peers.remove(stream_id)
            self._machine.ended()

    def _release(self, stream: BidiStream) -> None:
        """Forget a stream of which nothing more is to come, unless it was not read yet."""
        if stream.stream_id not in self._peers:
            self._streams.pop(stream.stream_id, None)


class SharedControl(ControlStream):
    """The control stream itself."""

    machine: RequestsStream

    def __init__(
        self, context: SessionContext, stream: BidiStream, machine: RequestsStream, streams: RequestStreams
    ) -> None:
        super().__init__(context, stream, machine)
        self._streams = streams
        # Bytes of messages that are not whole, for which the peer has its credit already.
        self._prepaid = 0
        self._unhandled = 0
        self._given_up = False

    def take_over(self, rest: bytes) -> None:
        """Handle bytes that were read, and for which the peer has its credit."""
        self._prepaid = len(rest)
        self.data_received(rest, False)

    def data_received(self, data: bytes, fin: bool) -> None:
        self._unhandled += len(data)
        self._read(data, fin)

    def go_on(self) -> None:
        self._read(b"", False)

    def _read(self, data: bytes, fin: bool) -> None:
        events, error = receive_events(self.machine, data, fin)
        left = self.machine.pending
        handled, self._unhandled = self._unhandled - left, left
        of_requests = sum(len(event.data) for event in events if isinstance(event, RequestBytes))
        self.consume(handled - of_requests)
        self.handle_all(events, error)
        if self.machine.unread:
            self.context.turns.add(self)
        elif left > self._prepaid:
            due, self._prepaid = left - self._prepaid, left
            self.stream.consumed(due)

    def consume(self, count: int) -> None:
        """Return credit for bytes that were handled, but for what was returned before."""
        paid = min(count, self._prepaid)
        self._prepaid -= paid
        self.stream.consumed(count - paid)

    def handle(self, event: Event) -> None:
        self._streams.handle(event)

    def _broken(self, error: RemoteProtocolError) -> None:
        # The virtual streams end with the session.
        self.machine.release()
        self.context.violated(error)

    def reset_received(self, code: int) -> None:
        self._lost("reset")

    def stop_received(self, code: int) -> None:
        self._lost("stopped")

    def _lost(self, how: str) -> None:
        self.machine.release()
        if not self._given_up:
            # A peer may reset it and stop it.
            self._given_up = True
            self.context.start(self.context.control_lost, f"the peer {how} the control stream")

    def send_ready(self) -> None:
        self._streams.send_ready()

    def failed(self, error: MoqtError) -> None:
        self._streams.lost(error)


class FirstBytes(StreamHandler):
    """A bidirectional stream of the peer in a session with one control stream, until its type is known.

    A client's control stream begins with CLIENT_SETUP. On draft 16 the requests for namespaces have streams, too. There
    are no others.

    Args:
        context: The session's.
        stream: The stream.
        streams: The session's virtual streams.
        opened: Called with a stream that is a request.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        streams: RequestStreams,
        opened: Callable[[BidiStream], None],
    ) -> None:
        self._context = context
        self._stream = stream
        self._streams = streams
        self._opened = opened
        context.pending_streams.add(self)

    def data_received(self, data: bytes, fin: bool) -> None:
        if not data:
            # The stream may become known before its first bytes.
            if fin:
                self.refuse(_CANCELLED)
            return
        self._context.pending_streams.discard(self)
        self._stream.unread(data, fin)
        try:
            is_control = self._streams.is_control_untrusted(data[0])
        except RemoteProtocolError as error:
            self._context.violated(error)
            return
        if is_control:
            self._streams.begin(self._stream)
        else:
            self._opened(self._stream)

    def reset_received(self, code: int) -> None:
        self.refuse(_CANCELLED)

    def connection_lost(self, error: MoqtError) -> None:
        self._context.pending_streams.discard(self)

    def refuse(self, code: int) -> None:
        """End the stream from this side."""
        self._context.pending_streams.discard(self)
        self._stream.reset(code)
        self._stream.stop(code)
