"""FETCH one way, FETCH_OK the other, and the objects on a stream of their own, which names the request.

A joining fetch (up to draft 19) has the range of a subscription up to where that began; a fill (from 20 on) is asked
for in SUBSCRIBE itself, and its stream names the subscription. So three requests have a stream of the same form:

    request          asked for by                  its objects' stream names
    ---------------  ----------------------------  -------------------------
    fetch            FETCH                         the FETCH
    joining fetch    FETCH, after a SUBSCRIBE      the FETCH
    fill             a parameter of SUBSCRIBE      the SUBSCRIBE

Spec: draft-ietf-moq-transport-18, sections 9.14 to 9.16 and 10.4.4; the fill is that of draft 20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ...codes import StreamCode
from ...errors import LocalProtocolError, Malformed, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.fetch_objects import FetchedObject, FetchEncoder, Missing, MissingRange
from ...wire.ietf.fetched_frames import FetchedFrames
from ...wire.ietf.filters import Filter, Start
from ...wire.ietf.names import Location
from ...wire.ietf.objects import FETCH_STREAM
from ...wire.ietf.parameters import Parameters
from ...wire.messages import Expect, FetchUpdate, Message
from ..events import Event, RequestRefused
from ..machine import RequestState, StreamMachine
from ..paths import format_requested
from .events import FetchAccepted, JoinRequested, PastRange, RangeRequested, ReplyStarted, RequestUnsupported
from .machine import (
    MAX_UPDATES,
    TOO_MANY_UPDATES,
    IetfRequester,
    IetfResponder,
    code_of_request,
    priority_of,
    text_of,
    track_name,
    wire_priority,
)
from .namespaces import path_of

if TYPE_CHECKING:
    from ...frame import Frame
    from .state import IetfState

_INVALID_RANGE = 0x11
_INVALID_JOINING_REQUEST_ID = 0x32


def past_range(wanted: Filter | tuple[()] | None, *, descending: bool = False) -> PastRange | None:
    """Return which objects of the past a filter lets through; None for one that starts after the newest object."""
    if not isinstance(wanted, Filter):
        return PastRange((0, 0), None, descending)
    if isinstance(wanted.start, Start):
        return None
    if isinstance(wanted.start, Location):
        end = None if wanted.end_group is None else (wanted.end_group, wanted.end_object)
        return PastRange((wanted.start.group, wanted.start.object), end, descending)
    return PastRange(wanted.start - 1, None, descending)


class FetchResponder(IetfResponder):
    """The peer fetches a range of ours.

    Events: `RangeRequested`, `JoinRequested` or `RequestUnsupported` once, `FetchUpdate` for each update,
    `RequestCancelled`.

    Attributes:
        request_id: The request's id, which its objects' stream names; -1 until it arrived.
        priority: 0 … 255, higher goes first, as the request says.
    """

    _first: ClassVar = Expect.FETCH
    _answers_to: ClassVar = ietf.Answered.FETCH

    def __init__(self, session: IetfState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)
        self.request_id = -1
        self.priority = 0
        # The ids of the updates that were not answered.
        self._unanswered: list[int] = []

    def accept(self, end: tuple[int, int], *, end_of_track: bool) -> bytes:
        """Return FETCH_OK.

        Args:
            end: The last object of the answer, inclusive. Up to draft 19 an answer may repeat that all of a group was
                asked for; moq-rs 0.5 takes that for nothing.
            end_of_track: True when no object can come after it.

        Raises:
            LocalProtocolError: There is no request to accept.
        """
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no fetch to accept")
        self._state = RequestState.ACCEPTED
        return self._session.codec.encode(ietf.FetchOk(self._reply_id(self.request_id), end_of_track, *end))

    def reply(self, *, descending: bool, priority: int) -> ReplySender:
        """Send the objects; the arguments are those of `ReplySender`."""
        return ReplySender(self._session, self.request_id, descending=descending, priority=priority)

    def refuse_range(self) -> bytes:
        """Return the refusal of a range in which nothing was published, after which the stream is finished."""
        return self.refusal_of(_INVALID_RANGE, "nothing of that range was published")

    def refuse_join(self) -> bytes:
        """Return the refusal of a fetch that joins no subscription, after which the stream is finished."""
        return self.refusal_of(_INVALID_JOINING_REQUEST_ID, "there is no such subscription")

    def finish(self) -> None:
        """Record that the answer is complete."""
        self._state = RequestState.FINISHED

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, ietf.Fetch) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._state = RequestState.PENDING
            self.request_id = message.request_id
            self._expect = Expect.FETCH_UPDATE
            events.append(self._requested(message))
        elif isinstance(message, ietf.RequestUpdate) and self._state is not RequestState.WAITING:
            self._admit_untrusted(message.request_id)
            if not session.profile.fixed_fields:
                self._unanswered.append(message.request_id)
            if len(self._unanswered) > MAX_UPDATES:
                problem = f"more than {MAX_UPDATES} updates whose answers are not taken"
                raise RemoteProtocolError(problem, code=TOO_MANY_UPDATES)
            priority = message.parameters.priority
            events.append(FetchUpdate(self.priority if priority is None else priority_of(priority)))
        elif not isinstance(message, ietf.Goaway):
            raise self._broken(f"{type(message).__name__} out of its place")

    def _requested(self, message: ietf.Fetch) -> RangeRequested | JoinRequested | RequestUnsupported:
        parameters, wanted = message.parameters, message.range
        if parameters.range_filters:
            # They may be used only where SETUP allows them.
            self._unsupported = True
            return RequestUnsupported()
        priority = self.priority = priority_of(parameters.priority)
        descending = parameters.ordered is False
        if isinstance(wanted, ietf.Joining):
            start = (wanted.start, 0) if wanted.absolute else wanted.start
            return JoinRequested(wanted.request_id, priority, PastRange(start, None, descending))
        track = message.track
        assert track is not None
        path = path_of(track.namespace, self._session) if text_of(track.name) is not None else None
        found = past_range(parameters.filter if wanted is None else wanted, descending=descending)
        # No broadcast has the empty path, nor one that no path can be.
        return RangeRequested(BroadcastPath() if path is None else path, text_of(track.name) or "", priority, found)

    def answer_updates(self) -> bytes:
        """Return a REQUEST_OK for each update that was not answered; b"" before the fetch is accepted."""
        if self._state is not RequestState.ACCEPTED:
            return b""
        answered, self._unanswered = self._unanswered, []
        return b"".join(map(self._encode_ok, answered))

    def _on_release(self) -> None:
        self._session.requests.give_back()


class ReplySender(StreamMachine):
    """We send the objects of a fetch or of a fill. The caller finishes the stream after the last one, or resets it.

    Args:
        session: What the machines of the session share.
        request_id: The request that it replies to.
        descending: True for the newest group first.
        priority: The publisher's priority of the track.
        counted: The subscription for which the stream counts, if it is not the request.
    """

    def __init__(
        self,
        session: IetfState,
        request_id: int,
        *,
        descending: bool,
        priority: int,
        counted: int | None = None,
    ) -> None:
        profile = session.profile
        self.opening = profile.encode(FETCH_STREAM) + profile.encode(request_id)
        self._encoder = FetchEncoder(profile, descending=descending)
        self._priority = wire_priority(priority)
        self._marks = not descending and profile.fetch_objects not in ("full", "status")
        self._session = session
        self._counted = request_id if counted is None else counted

    def opened(self) -> None:
        """Count the stream, for the subscription that it belongs to."""
        self._session.count_stream(self._counted)

    def frames(
        self, group: int, first: int, frames: Sequence[Frame], subgroup: int = 0, priority: int | None = None
    ) -> bytes:
        """Return the bytes of some frames of a group, in order.

        Args:
            group: The group's sequence.
            first: The index of the first frame.
            frames: The frames.
            subgroup: The subgroup that they belong to.
            priority: Its priority; None for the track's.
        """
        parts: list[bytes] = []
        number = self._priority if priority is None else wire_priority(priority)
        for index, frame in enumerate(frames, first):
            parts.append(self._encoder.encode(FetchedObject(group, subgroup, number, frame), index=index))
        return b"".join(parts)

    def lost(self, group: int, last: int) -> bytes | None:
        """Return the bytes that say that what is before, up to a frame inclusive, is not known any more.

        None where the draft cannot say so in this order: then the stream is reset.
        """
        if not self._marks:
            return None
        return self._encoder.encode_missing(MissingRange(Location(group, last), Missing.UNKNOWN))


class ReplyReceiver(StreamMachine):
    """The peer sends the objects that we fetched.

    Event: `ReplyStarted`, once the header arrived. The caller feeds `rest` and what follows to `frames`, which must not
    have pending bytes at the end. The fill of a subscription is parked until that is accepted.

    Attributes:
        request_id: Which request it replies to; -1 before the header.
        header_bytes: How many bytes of the stream the header took.
        frames: Reads the objects; None before the header, and while it is parked.
        rest: The bytes that came together with the end of the header.
    """

    def __init__(self, session: IetfState) -> None:
        self._session = session
        self._head = b""
        self.request_id = -1
        self.header_bytes = 0
        self.frames: FetchedFrames | None = None
        self.rest = b""

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        session = self._session
        head = self._head = self._head + data
        if self.request_id < 0:
            kind = session.profile.decode(head, 0)
            found = None if kind is None else session.profile.decode(head, kind[1])
            if found is None:
                if fin:
                    raise Malformed("FIN inside a header", code=StreamCode.MALFORMED_TRACK, scope="stream")
                return
            self.request_id, self.header_bytes = found
        frames = session.replies.get(self.request_id)
        if frames is None or session.parked_replies.get(self.request_id, self) is not self:
            problem = f"objects for the request {self.request_id}, which asked for none"
            raise RemoteProtocolError(problem, code=StreamCode.CANCELLED, scope="stream")
        self.parked = self.request_id in session.issued and not session.aliases.names(self.request_id)
        if self.parked:
            session.parked_replies[self.request_id] = self
            return
        self.release()
        del session.replies[self.request_id]
        # The fill of a subscription is one of its streams.
        session.count_read(self.request_id)
        self.frames = frames
        self._head, self.rest = b"", head[self.header_bytes :]
        events.append(ReplyStarted(self.request_id))

    def release(self) -> None:
        self._closed = True
        if self._session.parked_replies.get(self.request_id) is self:
            del self._session.parked_replies[self.request_id]


class FetchRequester(IetfRequester):
    """We fetch a range of the peer's.

    Events: `FetchAccepted`, or `RequestRefused`. The frames come on a stream of their own: see `ReplyReceiver`.

    Attributes:
        frames: Reads the reply.
    """

    _first: ClassVar = Expect.FETCH_REPLY

    def __init__(self, session: IetfState, message: ietf.Fetch, frames: FetchedFrames) -> None:
        super().__init__(session)
        self._ask(message)
        self.frames = frames
        self._state = RequestState.PENDING

    def _on_made(self, request_id: int) -> None:
        self._session.replies[request_id] = self.frames

    def update(self, priority: int) -> bytes:
        """Return REQUEST_UPDATE with another priority; b"" once the request is over, and in draft 14."""
        session, parameters = self._session, Parameters(priority=wire_priority(priority))
        if self._closed or session.profile.fixed_fields:
            return b""
        existing = self._reply_id(self.request_id)
        return session.codec.encode(ietf.RequestUpdate(session.next_request_id(), existing, parameters))

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case ietf.FetchOk() if self._state is RequestState.PENDING:
                self._state = RequestState.ACCEPTED
                events.append(FetchAccepted((message.end_group, message.end_object), message.end_of_track))
            case ietf.RequestError() if self._state is RequestState.PENDING:
                self._state = RequestState.ENDED
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case ietf.RequestOk() | ietf.RequestError() if self._state is RequestState.ACCEPTED:
                # The answer to an update of the priority.
                pass
            case ietf.Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is RequestState.PENDING:
            raise self._broken("FIN before the reply")

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]

    def _on_release(self) -> None:
        self._session.replies.pop(self.request_id, None)


def fetch_of(
    session: IetfState,
    broadcast: BroadcastPath | str,
    track: str,
    wanted: Filter,
    *,
    priority: int,
    descending: bool = False,
) -> FetchRequester:
    """Return a fetch of a range that has a first and a last group."""
    path = BroadcastPath.parse(broadcast)
    format_requested(path, track, session.dialect, session.limits)
    profile = session.profile
    ordered = False if descending else None
    parameters = Parameters(priority=wire_priority(priority), ordered=ordered)
    in_parameters = profile.fetch_filter
    if in_parameters:
        parameters = Parameters(priority=parameters.priority, ordered=ordered, filter=wanted)
    assert isinstance(wanted.start, Location)
    group = wanted.start.group if wanted.start.group == wanted.end_group else None
    name = track_name(path, track)
    message = ietf.Fetch(0, name, None if in_parameters else wanted, parameters)
    return FetchRequester(session, message, FetchedFrames(profile, session.limits, group=group, descending=descending))


def joining_fetch(session: IetfState, subscribe_id: int, group: int) -> FetchRequester:
    """Return the fetch of what the newest group had when a subscription began (up to draft 19)."""
    message = ietf.Fetch(0, None, ietf.Joining(subscribe_id, 0))
    return FetchRequester(session, message, FetchedFrames(session.profile, session.limits, group=group))
