"""What every stream's machine does alike: cutting messages out of bytes, FIN, reset, stop, release.

A machine knows its own stream and `SessionState`; it does not know the driver, other machines or the transport.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from ..codes import StreamCode
from ..errors import Malformed, ProtocolError, RemoteProtocolError
from ..wire.buffer import StreamBuffer
from .events import Event, RequestCancelled

if TYPE_CHECKING:
    from ..wire.messages import Expect, Message
    from .state import SessionState


class StreamMachine:
    """The state of one stream: bytes in, events out.

    Attributes:
        opening: What the driver writes first on a stream that this side opens; empty on the peer's streams.
    """

    opening: bytes = b""

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        """Takes bytes that arrived and returns what they say.

        How the bytes are cut makes no difference to the events, but that frames which arrive together come together.

        Args:
            data: The next bytes of the stream; may be empty.
            fin: True when the peer finished its half and nothing more will come.

        Raises:
            RemoteProtocolError: The peer broke a rule; `scope` says what to end, and `code` with which code.
            Malformed: The same, for bytes that do not decode.
            LimitExceeded: The same, for a bound of `Limits`.

        What the bytes in front of the mistake said is not lost: `events_before` has it.
        """
        return []

    def receive_reset(self, code: int) -> list[Event]:
        """Takes the peer's reset of its half of the stream. A reset is legal at any point."""
        return []

    def receive_stop(self, code: int) -> list[Event]:
        """Takes the peer's refusal to read this side's half of the stream (STOP_SENDING)."""
        return []

    def release(self) -> None:
        """Gives back what the stream holds in the session; called once the stream is over, or given up here.

        Calling it again does nothing. Whatever still arrives afterwards is ignored.
        """


def note_events(error: ProtocolError, events: Iterable[Event]) -> None:
    """Adds to an exception what was said before it, in front of what it has."""
    if isinstance(error, RemoteProtocolError):
        error.said_before = (*events, *error.said_before)


def events_before(error: RemoteProtocolError) -> list[Event]:
    """Returns what the bytes said in front of the mistake for which `receive_data` raised this."""
    return cast("list[Event]", list(error.said_before))


class MessageMachine(StreamMachine, abc.ABC):
    """A stream of control messages.

    A subclass sets `_expect` to what may come next, None for nothing, and handles each message as it is whole.
    """

    _error_code: ClassVar[int] = StreamCode.INTERNAL_ERROR
    """The stream code for a peer that breaks this kind of stream."""

    def __init__(self, state: SessionState, expect: Expect | None) -> None:
        self._state = state
        self._expect = expect
        self._buffer = StreamBuffer()
        # Nothing that arrives matters any more: FIN, reset, an error or a local release came first.
        self._deaf = False
        self._released = False

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        if self._deaf:
            return []
        events: list[Event] = []
        try:
            self._read_untrusted(data, fin, events)
        except ProtocolError as error:
            self._deaf = True
            note_events(error, events)
            raise
        return events

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        buffer = self._buffer
        buffer.feed(data)
        while buffer:
            if self._expect is None:
                if self._state.dialect.features.stray_zeros:
                    buffer.skip_zeros()
                if buffer:
                    raise self._broken("bytes where nothing more is due")
                break
            message = self._state.dialect.read_untrusted(self._expect, buffer, self._state.limits)
            if message is None:
                break
            self._on_message(message, events)
        if fin:
            self._deaf = True
            if buffer:
                raise self._cut_short()
            self._on_fin(events)

    def receive_reset(self, code: int) -> list[Event]:
        if self._deaf:
            return []
        self._deaf = True
        return self._on_reset(code)

    def receive_stop(self, code: int) -> list[Event]:
        if self._deaf:
            return []
        return self._on_stop(code)

    def release(self) -> None:
        if not self._released:
            self._released = self._deaf = True
            self._on_release()

    @property
    def _name(self) -> str:
        return self._expect.value if self._expect is not None else "the stream"

    def _broken(self, problem: str) -> RemoteProtocolError:
        """Returns the exception for a peer that broke the rules of this stream."""
        return RemoteProtocolError(f"{type(self).__name__}: {problem}", code=self._error_code, scope="stream")

    def _cut_short(self) -> RemoteProtocolError:
        """Returns the exception for a FIN inside a message."""
        return Malformed(f"FIN inside {self._name}", code=self._error_code, scope="stream")

    @abc.abstractmethod
    def _on_message(self, message: Message, events: list[Event]) -> None:
        """Takes a message of the kind that `_expect` names, and adds what it means."""

    @abc.abstractmethod
    def _on_fin(self, events: list[Event]) -> None:
        """Takes a FIN at a message's end, and adds what it means."""

    @abc.abstractmethod
    def _on_reset(self, code: int) -> list[Event]:
        """Returns what the peer's reset means."""

    def _on_stop(self, code: int) -> list[Event]:
        """Returns what the peer's STOP_SENDING means; nothing, on most streams."""
        return []

    def _on_release(self) -> None:
        """Gives back what the stream holds in the session."""


class Responder(MessageMachine):
    """A stream on which the peer asks for something, and may withdraw it."""

    def __init__(self, state: SessionState, expect: Expect) -> None:
        super().__init__(state, expect)
        # The request arrived, so there is something that the peer can withdraw.
        self._asked = False
        # Nothing is left to withdraw: the peer did it, or the answer is complete.
        self._settled = False

    def _on_fin(self, events: list[Event]) -> None:
        if not self._asked:
            raise self._broken("FIN before the request")
        events.extend(self._cancelled(None))

    def _on_reset(self, code: int) -> list[Event]:
        return self._cancelled(code)

    def _on_stop(self, code: int) -> list[Event]:
        # Who reads no answer has withdrawn the request, even one that is still on its way.
        self._deaf = True
        return self._cancelled(code)

    def _cancelled(self, code: int | None) -> list[Event]:
        if self._settled or not self._asked:
            return []
        self._settled = True
        return [RequestCancelled(code)]
