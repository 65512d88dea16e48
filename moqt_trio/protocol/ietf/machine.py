"""The base of the machines of requests, and how a request is refused.

A request is answered by an acceptance or by REQUEST_ERROR, once, and then by what belongs to its kind. Up to draft 18
the requester's FIN cancels it; RESET_STREAM and STOP_SENDING do so in every draft.

Spec: draft-ietf-moq-transport-18, sections 3.3.2 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...codes import SessionCode, StreamCode
from ...errors import LocalProtocolError, RemoteProtocolError, printable
from ...wire.ietf.messages import RequestError
from ...wire.ietf.names import TrackName
from ..machine import MessageMachine, RequestState, Responder

if TYPE_CHECKING:
    from ...path import BroadcastPath
    from ...wire.ietf.names import Namespace
    from ..events import Event
    from .state import IetfState

MAX_UPDATES = 32
"""Updates of one request that may wait for their answers: a peer that takes no answer sends no more."""
TOO_MANY_UPDATES = 0x1B
_DEFAULT_PRIORITY = 128
_MOST_URGENT = 255
NOT_SUPPORTED = 0x3
"""The code of REQUEST_ERROR for what this side does not do."""
_DOES_NOT_EXIST = 0x10
_REQUEST_CODES = {
    StreamCode.INTERNAL_ERROR: 0x0,
    StreamCode.NOT_FOUND: _DOES_NOT_EXIST,
    StreamCode.UNROUTABLE: _DOES_NOT_EXIST,
    StreamCode.GOING_AWAY: 0x6,
    StreamCode.NO_CAPACITY: 0x9,
    StreamCode.CONTROL_TIMEOUT: 0x2,
    StreamCode.TOO_FAR_BEHIND: 0x11,
    StreamCode.MALFORMED_TRACK: 0x12,
}
_FROM_REQUEST_CODES = {
    0x2: StreamCode.CONTROL_TIMEOUT,
    0x6: StreamCode.GOING_AWAY,
    0x9: StreamCode.NO_CAPACITY,
    0x10: StreamCode.NOT_FOUND,
    0x11: StreamCode.NOT_FOUND,
    0x12: StreamCode.MALFORMED_TRACK,
    0x30: StreamCode.NO_CAPACITY,
}


def request_code(code: int) -> int:
    """Return the number that a code of this library has in REQUEST_ERROR."""
    return next((number for known, number in _REQUEST_CODES.items() if known == code), 0)


def code_of_request(number: int) -> int:
    """Return the code of this library that a number in REQUEST_ERROR stands for."""
    return _FROM_REQUEST_CODES.get(number, StreamCode.INTERNAL_ERROR)


def violation(problem: str) -> RemoteProtocolError:
    """Return the exception for a peer that broke a rule of the session."""
    return RemoteProtocolError(problem, code=SessionCode.PROTOCOL_VIOLATION)


def priority_of(number: int | None) -> int:
    """Return a priority of this library, where higher is more urgent; None is the drafts' default."""
    return _MOST_URGENT - (_DEFAULT_PRIORITY if number is None else number)


def wire_priority(priority: int) -> int:
    """Return the number that a priority of this library has in the drafts, where lower is more urgent."""
    return _MOST_URGENT - priority


def name_of(text: str) -> bytes:
    """Return a name as its bytes. Raises `LocalProtocolError` for a text that UTF-8 cannot hold."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{printable(text)!r} cannot be written in UTF-8") from error


def namespace_of(path: BroadcastPath) -> Namespace:
    """Return a path as a namespace. Raises `LocalProtocolError` for a text that UTF-8 cannot hold."""
    return tuple(name_of(part) for part in path.parts)


def track_name(path: BroadcastPath, track: str) -> TrackName:
    """Return the full name of a track. Raises `LocalProtocolError` for a text that UTF-8 cannot hold."""
    return TrackName(namespace_of(path), name_of(track))


def text_of(name: bytes) -> str | None:
    """Return a name as text; None for bytes that are no UTF-8, which no name of this library is."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


class IetfMachine(MessageMachine):
    """A stream of control messages of an IETF session. A message out of its place ends the session."""

    _session: IetfState
    _error_code: ClassVar[int] = StreamCode.INTERNAL_ERROR

    def _broken(self, problem: str) -> RemoteProtocolError:
        return violation(f"{type(self).__name__}: {problem}")

    def _cut_short(self) -> RemoteProtocolError:
        return self._broken(f"FIN inside {self._name}")


class IetfResponder(IetfMachine, Responder):
    """A request of the peer's."""

    def refusal(self, code: int) -> bytes:
        """Return REQUEST_ERROR, after which the stream is finished; b"" once the request was answered."""
        return self.refusal_of(request_code(code))

    def refusal_of(self, number: int, reason: str = "") -> bytes:
        """Return REQUEST_ERROR with a number of the drafts', as `refusal` does for a code of this library."""
        if self._state is not RequestState.PENDING:
            return b""
        self._state = RequestState.FINISHED
        return self._session.codec.encode(RequestError(None, number, reason))

    def receive_stop(self, code: int) -> list[Event]:
        # Also after a FIN, which ends only what the requester sends; in some drafts it cancels nothing by itself.
        return [] if self._released else self._on_stop(code)

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is RequestState.WAITING:
            raise self._broken("FIN before the request")
        if self._session.profile.fin_cancels:
            events.extend(self._cancelled(None))
