"""The base of every stream's machine: bytes in, events out, the peer's mistakes, FIN, reset, stop, release.

The input of a stream is open, then closed, and never opens again. FIN, a reset, a mistake of the peer's and `release`
close it; on some streams STOP_SENDING does. What still arrives on a closed input is ignored.

A responder answers a request of the peer's. Its states, and what moves between them:

    state      | request  | accept   | end   | finish, reply | FIN, reset or stop of the peer
    -----------|----------|----------|-------|---------------|-------------------------------
    WAITING    | PENDING  | –        | –     | –             | WAITING: nothing was asked for
    PENDING    | –        | ACCEPTED | ENDED | FINISHED      | CANCELLED, and `RequestCancelled`
    ACCEPTED   | –        | –        | ENDED | FINISHED      | CANCELLED, and `RequestCancelled`
    ENDED      | –        | –        | –     | FINISHED      | CANCELLED, and `RequestCancelled`
    FINISHED   | –        | b""      | b""   | FINISHED      | FINISHED
    CANCELLED  | –        | b""      | b""   | FINISHED      | CANCELLED

A dash is a mistake: of the caller, `LocalProtocolError`, or of the peer, `RemoteProtocolError`. Only subscriptions and
announcements have `accept`, and only subscriptions have `end`.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, ClassVar

from ..codes import StreamCode
from ..errors import Malformed, ProtocolError, RemoteProtocolError
from ..wire.buffer import StreamBuffer
from .events import Event, RequestCancelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..wire.messages import Expect, Message
    from .state import SessionState


class StreamMachine:
    """The state of one stream.

    Attributes:
        opening: What the caller writes first on a stream that this side opens; empty on the peer's streams.
        unread: True when bytes wait because the `MessageBudget` was used up: after other work, call `receive_data`
            with b"". Every call reads one message at the least.
        parked: True while what has arrived can't be read before a message on another stream.
    """

    opening: bytes = b""
    unread: bool = False
    parked: bool = False
    _closed: bool = False
    _partial_events: Sequence[Event] = ()

    @property
    def own_stream(self) -> bool:
        """False for a request that shares the control stream with all others."""
        return True

    @property
    def partial_events(self) -> list[Event]:
        """The events of the bytes before the peer's mistake, once `receive_data` has raised. Handle them first."""
        return list(self._partial_events)

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        """Return the events of some bytes.

        The events do not depend on how the bytes are cut, except that frames which arrive together are in one event.

        Args:
            data: The next bytes of the stream; may be empty.
            fin: True when the peer finished its half and nothing more will come.

        Raises:
            RemoteProtocolError: The peer broke a rule; `scope` says what to end, and `code` with which code.
                `partial_events` has the events before it.
            Malformed: The same, for bytes that do not decode.
            LimitExceeded: The same, for a bound of `Limits`.
        """
        if self._closed:
            self.unread = False
            return []
        events: list[Event] = []
        try:
            self._read_untrusted(data, fin, events)
        except ProtocolError:
            self._closed = True
            self.unread = False
            self._partial_events = events
            raise
        return events

    def receive_reset(self, code: int) -> list[Event]:
        """Return the events of the peer's reset of its half. A reset is legal at any point: this raises nothing."""
        if self._closed:
            return []
        self._closed = True
        return self._on_reset(code)

    def receive_stop(self, code: int) -> list[Event]:
        """Return the events of the peer's STOP_SENDING for this side's half. This raises nothing."""
        return [] if self._closed else self._on_stop(code)

    def refusal(self, code: int) -> bytes:
        """Return the message that refuses a request, after which the stream is finished; b"" for a reset."""
        return b""

    def release(self) -> None:
        """Release what the stream holds in the session; called once the stream is over, or was cancelled here.

        Calling it again does nothing. Whatever still arrives afterwards is ignored.
        """
        self._closed = True

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        """Read bytes, and add their events. After a FIN it closes the input."""

    def _on_reset(self, code: int) -> list[Event]:
        """Return the events of the peer's reset; none, on most streams."""
        return []

    def _on_stop(self, code: int) -> list[Event]:
        """Return the events of the peer's STOP_SENDING; none, on most streams."""
        return []


class MessageMachine(StreamMachine, abc.ABC):
    """A stream of control messages.

    A subclass sets `_expect` to what may come next, None for nothing, and handles each message as it is whole.
    """

    _error_code: ClassVar[int] = StreamCode.INTERNAL_ERROR
    """The stream code for a peer that breaks this kind of stream."""

    _first: ClassVar[Expect]
    """The first message of the peer's on this kind of stream."""

    def __init__(self, session: SessionState, expect: Expect | None = None) -> None:
        """Make the machine of a stream.

        Args:
            session: What the machines of the session share.
            expect: The first message of the peer's, where that is not the same for every version.
        """
        self._session = session
        self._expect: Expect | None = expect or self._first
        self._buffer = StreamBuffer()
        self._released = False
        self._finished = False

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        buffer, session = self._buffer, self._session
        budget = session.budget
        buffer += data
        if fin:
            self._finished = True
        first = True
        self.unread = False
        while buffer:
            if self._expect is None:
                if session.dialect.quirks.stray_zeros:
                    buffer.skip_zeros()
                if buffer:
                    raise self._broken("bytes where nothing more is due")
                break
            if budget.left <= 0 and not first:
                self.unread = True
                return
            message = session.dialect.read_untrusted(self._expect, buffer, session.limits)
            if message is None:
                break
            budget.left -= 1
            first = False
            self._on_message(message, events)
            if self._closed:
                # The message was the last one: what follows it is ignored, as it is when it arrives later.
                return
        if self._finished:
            self._closed = True
            if buffer:
                raise self._cut_short()
            self._on_fin(events)

    def release(self) -> None:
        if not self._released:
            self._released = self._closed = True
            self._on_release()

    @property
    def _name(self) -> str:
        return self._expect.value if self._expect is not None else "the stream"

    def _broken(self, problem: str) -> RemoteProtocolError:
        """Return the exception for a peer that broke the rules of this stream."""
        return RemoteProtocolError(f"{type(self).__name__}: {problem}", code=self._error_code, scope="stream")

    def _cut_short(self) -> RemoteProtocolError:
        """Return the exception for a FIN inside a message."""
        return Malformed(f"FIN inside {self._name}", code=self._error_code, scope="stream")

    @abc.abstractmethod
    def _on_message(self, message: Message, events: list[Event]) -> None:
        """Handle a message of the kind that `_expect` names, and add its events."""

    @abc.abstractmethod
    def _on_fin(self, events: list[Event]) -> None:
        """Handle a FIN at a message's end, and add its events."""

    def _on_release(self) -> None:
        """Release what the stream holds in the session."""


class RequestState(enum.Enum):
    """How far a request is; the table is at the head of this file."""

    WAITING = "waiting"
    PENDING = "pending"
    ACCEPTED = "accepted"
    ENDED = "ended"
    FINISHED = "finished"
    CANCELLED = "cancelled"


_OVER = frozenset({RequestState.FINISHED, RequestState.CANCELLED})


class Responder(MessageMachine):
    """A stream on which the peer makes a request, and may cancel it."""

    _state = RequestState.WAITING

    @property
    def asked(self) -> bool:
        """True once the request has arrived. A stream that ends before asked for nothing: it has no event."""
        return self._state is not RequestState.WAITING

    @property
    def answered(self) -> bool:
        """True once it was accepted or refused, and once the peer has cancelled it."""
        return self._state not in (RequestState.WAITING, RequestState.PENDING)

    @property
    def _over(self) -> bool:
        """True when nothing is left to answer: the reply is complete, or the peer has cancelled."""
        return self._state in _OVER

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is RequestState.WAITING:
            raise self._broken("FIN before the request")
        events.extend(self._cancelled(None))

    def _on_reset(self, code: int) -> list[Event]:
        return self._cancelled(code)

    def _on_stop(self, code: int) -> list[Event]:
        # A peer that reads no answer has cancelled the request, even one that is still on its way.
        self._closed = True
        return self._cancelled(code)

    def _cancelled(self, code: int | None) -> list[Event]:
        if self._over or self._state is RequestState.WAITING:
            return []
        self._state = RequestState.CANCELLED
        return [RequestCancelled(code)]


class CountedResponder(Responder):
    """A request that counts for `Limits.max_requests` until it is released: all but subscriptions, which have ids."""

    def __init__(self, session: SessionState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)

    def _on_release(self) -> None:
        self._session.requests.give_back()
