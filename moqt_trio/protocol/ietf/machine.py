"""The base of the machines of requests, and how a request is refused.

A request is answered by an acceptance or by REQUEST_ERROR, once, and then by what belongs to its kind. Up to draft 18
the requester's FIN cancels it; RESET_STREAM and STOP_SENDING do so in every draft.

Spec: draft-ietf-moq-transport-18, sections 3.3.2 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from ...codes import SessionCode, StreamCode
from ...errors import LocalProtocolError, RemoteProtocolError, printable
from ...wire.ietf import messages as ietf
from ...wire.ietf.messages import Answered, RequestError, RequestOk
from ...wire.ietf.names import TrackName
from ..machine import MessageMachine, RequestState, Responder

if TYPE_CHECKING:
    from ...path import BroadcastPath
    from ...wire.ietf.names import Namespace
    from ...wire.ietf.profile import Profile
    from ...wire.messages import Message
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
_REQUEST_CODES: Mapping[int, int] = {
    StreamCode.INTERNAL_ERROR: 0x0,
    StreamCode.NOT_FOUND: _DOES_NOT_EXIST,
    StreamCode.UNROUTABLE: _DOES_NOT_EXIST,
    StreamCode.GOING_AWAY: 0x6,
    StreamCode.NO_CAPACITY: 0x9,
    StreamCode.CONTROL_TIMEOUT: 0x2,
    StreamCode.TOO_FAR_BEHIND: 0x11,
    StreamCode.MALFORMED_TRACK: 0x12,
}
_FROM_REQUEST_CODES: Mapping[int, int] = {
    0x2: StreamCode.CONTROL_TIMEOUT,
    0x6: StreamCode.GOING_AWAY,
    0x9: StreamCode.NO_CAPACITY,
    0x10: StreamCode.NOT_FOUND,
    0x11: StreamCode.NOT_FOUND,
    0x12: StreamCode.MALFORMED_TRACK,
    0x30: StreamCode.NO_CAPACITY,
}


_UNNAMED_BEFORE_17 = frozenset({0x6, 0x9})
"""GOING_AWAY and EXCESSIVE_LOAD exist from draft 17 on."""
_NUMBERS_14: Mapping[int, int] = {0x10: 0x4, 0x11: 0x5, 0x12: 0x9, 0x20: 0x4, 0x32: 0x7}
"""What draft 14 has for the numbers of the others. Its 4 is UNINTERESTED in what refuses a PUBLISH."""
_TO_NUMBERS_14: Mapping[int, int] = {0x4: 0x10, 0x5: 0x11, 0x6: 0x11, 0x7: 0x32, 0x9: 0x12}
"""The other way round; 6, no objects in a range, is a number of its own there."""

ANSWERS: Mapping[type[Message], Answered] = {
    ietf.Subscribe: Answered.SUBSCRIBE,
    ietf.Publish: Answered.PUBLISH,
    ietf.Fetch: Answered.FETCH,
    ietf.TrackStatus: Answered.TRACK_STATUS,
    ietf.PublishNamespace: Answered.PUBLISH_NAMESPACE,
    ietf.SubscribeNamespace: Answered.SUBSCRIBE_NAMESPACE,
    ietf.SubscribeTracks: Answered.ANY,
}
"""What an acceptance or a refusal of a request says that it answers, in draft 14."""


def number_in(profile: Profile, number: int) -> int:
    """Return what a draft has for the number of a refusal; 0, a failure, for one that it lacks."""
    if profile.error == "each":
        return number if number <= NOT_SUPPORTED else _NUMBERS_14.get(number, 0)
    return 0 if profile.draft < 17 and number in _UNNAMED_BEFORE_17 else number


def request_code(code: int) -> int:
    """Return the number that a code of this library has in REQUEST_ERROR; some drafts have another, see `number_in`."""
    return next((number for known, number in _REQUEST_CODES.items() if known == code), 0)


def code_of_request(number: int, profile: Profile) -> int:
    """Return the code of this library that a number in a refusal stands for."""
    if profile.error == "each":
        number = _TO_NUMBERS_14.get(number, number if number <= NOT_SUPPORTED else 0)
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
    """A stream of control messages of an IETF session. A message out of its place ends the session.

    Up to draft 16 the stream is a virtual one: its messages share the control stream with all others, and name their
    request; see `control_stream.py`.
    """

    _session: IetfState
    _error_code: ClassVar[int] = StreamCode.INTERNAL_ERROR
    _answers_to: ClassVar[Answered] = Answered.ANY
    """What the request is, for the messages of draft 14 that answer it."""

    @property
    def own_stream(self) -> bool:
        return not self._session.profile.one_control_stream

    def _broken(self, problem: str) -> RemoteProtocolError:
        return violation(f"{type(self).__name__}: {problem}")

    def _cut_short(self) -> RemoteProtocolError:
        return self._broken(f"FIN inside {self._name}")

    def _admit_untrusted(self, request_id: int) -> None:
        """Record the id of a request or an update of the peer's.

        Where it came on the control stream of all requests, that has recorded it before, in the order of arrival.

        Raises: as `PeerRequests.admit_untrusted`.
        """
        if self.own_stream:
            self._session.requests_of_peer.admit_untrusted(request_id)

    def _reply_id(self, request_id: int) -> int | None:
        """Return what a message about a request names it by: its id up to draft 16, and nothing from 17 on."""
        return request_id if self._session.profile.one_control_stream else None

    def _encode_ok(self, request_id: int) -> bytes:
        """Return the plain acceptance of a request, or of an update."""
        return self._session.codec.encode(RequestOk(self._reply_id(request_id), answered=self._answers_to))

    def _encode_error(self, request_id: int, number: int, reason: str = "") -> bytes:
        """Return the refusal of a request, or of an update, with a number of the draft's."""
        error = RequestError(self._reply_id(request_id), number, reason, answered=self._answers_to)
        return self._session.codec.encode(error)


class IetfRequester(IetfMachine):
    """A request of ours.

    Its id is taken when it is first asked for, and that is when the request is written. Up to draft 16 the ids follow
    each other on the wire: one that was taken for a request that is then not made would be missing there.
    """

    _request_id: int | None = None

    def _ask(self, request: Message) -> None:
        """Set what is asked for, with any id. Raises `LocalProtocolError` for what the draft cannot carry."""
        self._session.codec.encode(request)
        self._request: Any = request

    @property
    def request_id(self) -> int:
        """The request's id; -1 for one that was released before it was made."""
        if self._request_id is None:
            if self._released:
                return -1
            self._request_id = self._session.next_request_id()
            self._on_made(self._request_id)
        return self._request_id

    @property
    def opening(self) -> bytes:  # type: ignore[override]
        """The request."""
        return self._session.codec.encode(attrs.evolve(self._request, request_id=self.request_id))

    def _on_made(self, request_id: int) -> None:
        """Note the id."""


class IetfResponder(IetfMachine, Responder):
    """A request of the peer's."""

    _request_id: int = -1
    _unsupported = False
    """True for a request that asks for what this side does not do."""

    def _begin_untrusted(self, request_id: int) -> None:
        """Note the id of the request, or raise for one that the peer may not use."""
        self._admit_untrusted(request_id)
        self._request_id = request_id

    def refusal(self, code: int) -> bytes:
        """Return REQUEST_ERROR, after which the stream is finished; b"" once the request was answered."""
        return self.refusal_of(NOT_SUPPORTED if self._unsupported else request_code(code))

    def refusal_of(self, number: int, reason: str = "") -> bytes:
        """Return REQUEST_ERROR with a number of the drafts', as `refusal` does for a code of this library."""
        if self._state is not RequestState.PENDING:
            return b""
        self._state = RequestState.FINISHED
        number = number_in(self._session.profile, number)
        return self._encode_error(self._request_id, number, reason)

    def receive_stop(self, code: int) -> list[Event]:
        # Also after a FIN, which ends only what the requester sends; in some drafts it cancels nothing by itself.
        return [] if self._released else self._on_stop(code)

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is RequestState.WAITING:
            raise self._broken("FIN before the request")
        if self._session.profile.fin_cancels:
            events.extend(self._cancelled(None))
