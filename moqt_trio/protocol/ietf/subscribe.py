"""SUBSCRIBE one way, SUBSCRIBE_OK and PUBLISH_DONE the other; REQUEST_UPDATE and its answers.

The groups travel on streams of their own (`subgroup.py`), which name the subscription by an alias that its publisher
chose, and may overtake the SUBSCRIBE_OK that says so.

The responder goes through the states of `protocol/machine.py`. A requester is PENDING until SUBSCRIBE_OK or
REQUEST_ERROR, and ACCEPTED until PUBLISH_DONE.

Spec: draft-ietf-moq-transport-18, sections 5.1 and 9.8 to 9.12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

import attrs

from ...codes import StreamCode
from ...errors import LocalProtocolError
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.fetched_frames import FetchedFrames
from ...wire.ietf.filters import Filter, Start
from ...wire.ietf.names import Location
from ...wire.ietf.parameters import Parameters
from ...wire.messages import Expect, Message, Subscribe, SubscribeOk, SubscribeUpdate, TrackInfo
from ..events import Event, RequestFinished, RequestRefused, SubscribeRequested
from ..machine import RequestState
from ..paths import format_requested
from .events import AliasShared, FillRequested, PastRange, RequestUnsupported, UpdateAnswered, UpdateRefused
from .fetch import FetchRequester, ReplySender, joining_fetch, past_range
from .machine import (
    IetfRequester,
    IetfResponder,
    code_of_request,
    priority_of,
    text_of,
    track_name,
    wire_priority,
)
from .namespaces import path_of
from .track_properties import properties_of_track, track_info
from .updates import ReceivedUpdates, SentUpdates

if TYPE_CHECKING:
    from ..subscribe import StartPlace, SubscriptionChanges
    from .state import IetfState

_TRACK_ENDED = 0x2
_SUBSCRIPTION_ENDED = 0x3
SHARED_ALIASES = 19
"""From this draft on a publisher may give several subscriptions to one track one alias; see `TrackAliases`."""
_EVERYTHING = Filter(Location(0, 0))
_NEWEST_GROUP = Parameters(filter=Filter(1))
_BEHIND_FROM_18 = 0x5
_BEHIND_BEFORE_18 = 0x6
_GOING_AWAY = 0x4
_UPDATE_FAILED = 0x8
_MALFORMED = 0x12


class SubscribeResponder(IetfResponder):
    """The peer subscribes to a track of ours.

    Events: `SubscribeRequested` or `RequestUnsupported` once, `SubscribeUpdate` for each update, before it
    `FillRequested` for one that wants something of the past, `UpdateRefused` for one that asks for what this side does
    not do, `RequestCancelled`.

    Attributes:
        request: What the peer asks for now; None until it arrived.
        accepted: True once `accept` was called.
        fill: What of the past is sent on a stream of its own, once the subscription is accepted; None for nothing.
        fill_priority: The subscriber's priority of it.
        start: Where delivery starts when `request` names no group: `"object"` is behind the newest one, a number so
            many groups before the next one.
        info: The track's properties, to be set before `accept`; None writes none.
    """

    _first: ClassVar = Expect.SUBSCRIBE
    _answers_to: ClassVar = ietf.Answered.SUBSCRIBE
    _is_offer: ClassVar[bool] = False

    request: Subscribe | None = None
    accepted = False
    fill: PastRange | None = None
    fill_priority = 0
    start: Literal["latest", "object"] | int = "object"
    info: TrackInfo | None = None

    def __init__(self, session: IetfState) -> None:
        super().__init__(session)
        self._updates = ReceivedUpdates(session)

    def accept(
        self, start_group: int | None, latest_group: int | None = None, newest: tuple[int, int] | None = None
    ) -> bytes:
        """Return SUBSCRIBE_OK; to be called once.

        Args:
            start_group: Not carried.
            latest_group: Not carried.
            newest: The newest frame, as its group and its index; None before the first one.

        Raises:
            LocalProtocolError: There is no request yet, or it was answered before; or the draft cannot carry the
                track's properties, and the request is to be refused.
        """
        if self._over:
            return b""
        if self.request is None or self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no subscription to accept")
        alias, profile = self.request.subscribe_id, self._session.profile
        properties = () if self.info is None else properties_of_track(self.info, profile)
        parameters = Parameters(largest=largest_of(newest))
        data = self._session.codec.encode(ietf.SubscribeOk(self._reply_id(alias), alias, parameters, properties))
        self.accepted = True
        self._state = RequestState.ACCEPTED
        return data

    def reply(self, *, descending: bool, priority: int, request_id: int | None = None) -> ReplySender:
        """Send what `fill` asks for, or the update of this id; the other arguments are those of `ReplySender`."""
        assert self.request is not None
        subscribe_id = self.request.subscribe_id
        return ReplySender(
            self._session,
            subscribe_id if request_id is None else request_id,
            descending=descending,
            priority=priority,
            counted=subscribe_id,
        )

    def end(self, group: int) -> bytes:
        """Return PUBLISH_DONE, which follows the last group; FIN follows it."""
        if self._over:
            return b""
        if self.request is None or self._state is RequestState.ENDED:
            raise LocalProtocolError("there is no subscription to end")
        if self._state is RequestState.PENDING:
            return self.refusal(StreamCode.NOT_FOUND)
        self._state = RequestState.ENDED
        return self._done(_TRACK_ENDED)

    def refusal(self, code: int) -> bytes:
        """Return REQUEST_ERROR before the acceptance, and PUBLISH_DONE after it; b"" where only a reset says the code.

        The stream is finished with either.
        """
        if self._state is not RequestState.ACCEPTED:
            return super().refusal(code)
        refused = self._updates.refused
        status = _UPDATE_FAILED if refused else self._status(code)
        if status is None:
            return b""
        self._state = RequestState.FINISHED
        return self._updates.take() + self._done(status)

    def _status(self, code: int) -> int | None:
        """Return the status of PUBLISH_DONE that a code of this library has, or None."""
        behind = _BEHIND_FROM_18 if self._session.profile.draft >= 18 else _BEHIND_BEFORE_18
        statuses = {
            StreamCode.GOING_AWAY: _GOING_AWAY,
            StreamCode.TOO_FAR_BEHIND: behind,
            StreamCode.MALFORMED_TRACK: _MALFORMED,
        }
        return next((status for known, status in statuses.items() if known == code), None)

    def _done(self, status: int) -> bytes:
        assert self.request is not None
        request_id = self.request.subscribe_id
        streams = self._session.streams_opened.get(request_id, 0)
        return self._session.codec.encode(ietf.PublishDone(self._reply_id(request_id), status, streams))

    def drop(self, first: int, last: int, code: int = 0) -> bytes:
        """Return b"": no draft reports groups that are not delivered."""
        return b""

    def finish(self) -> None:
        """Record that this side finished the stream."""
        self._state = RequestState.FINISHED

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if isinstance(message, ietf.Subscribe) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._on_subscribe(message, events)
        elif isinstance(message, ietf.RequestUpdate) and self.request is not None:
            self._admit_untrusted(message.request_id)
            self._on_update(message, events)
        elif not isinstance(message, ietf.Goaway):
            raise self._broken(f"{type(message).__name__} out of its place")

    def _on_subscribe(self, message: ietf.Subscribe, events: list[Event]) -> None:
        session, parameters = self._session, message.parameters
        self._state = RequestState.PENDING
        self._expect = Expect.SUBSCRIBE_UPDATE
        path = path_of(message.track.namespace, session) if text_of(message.track.name) is not None else None
        session.peers.admit_untrusted(message.request_id)
        start_group, start_frame, end_group, end_frame = self._range(parameters.filter)
        self.request = Subscribe(
            message.request_id,
            "" if path is None else str(path),
            text_of(message.track.name) or "",
            priority_of(parameters.priority),
            parameters.ordered,
            0,
            start_group,
            end_group,
            start_frame,
            end_frame,
            forward=parameters.forward is not False,
            delivery_timeout_ms=parameters.delivery_timeout_ms or 0,
            rendezvous_ms=parameters.rendezvous_ms or 0,
        )
        if parameters.fill is not None and parameters.forward is not False:
            self.fill = self._fill_of(parameters.fill)
            given = parameters.fill.priority
            self.fill_priority = self.request.priority if given is None else priority_of(given)
        if parameters.range_filters:
            # They may be used only where SETUP allows them.
            self._unsupported = True
            events.append(RequestUnsupported())
            return
        # No broadcast has the empty path, nor one that no path can be.
        events.append(SubscribeRequested(BroadcastPath() if path is None else path, self.request))

    def _range(self, wanted: Filter | tuple[()] | None) -> tuple[int | None, int, int | None, int | None]:
        if wanted == ():
            wanted = _EVERYTHING
        if not isinstance(wanted, Filter):
            return None, 0, None, None
        if isinstance(wanted.start, Location):
            return wanted.start.group, wanted.start.object, wanted.end_group, wanted.end_object
        if isinstance(wanted.start, int):
            self.start = wanted.start
        else:
            self.start = 0 if wanted.start is Start.NEXT_GROUP else "object"
        return None, 0, None, None

    def _on_update(self, message: ietf.RequestUpdate, events: list[Event]) -> None:
        assert self.request is not None
        parameters = message.parameters
        self._updates.add_untrusted(message.request_id, resumes=parameters.forward is True and not self.request.forward)
        if parameters.range_filters:
            # They may be used only where SETUP allows them.
            self._updates.refused = True
            events.append(UpdateRefused())
            return
        update = self._change(parameters)
        wanted = None if parameters.fill is None or not update.forward else self._fill_of(parameters.fill)
        if wanted is not None:
            given = parameters.fill.priority if parameters.fill is not None else None
            priority = update.priority if given is None else priority_of(given)
            events.append(FillRequested(message.request_id, wanted, priority))
        events.append(update)

    @staticmethod
    def _fill_of(fill: Parameters) -> PastRange | None:
        return past_range(fill.filter, descending=fill.ordered is False)

    def _change(self, parameters: Parameters) -> SubscribeUpdate:
        """Apply what an update names, and return the whole of what is asked for then."""
        request = self.request
        assert request is not None
        timeout = parameters.delivery_timeout_ms
        changed = attrs.evolve(
            request,
            priority=request.priority if parameters.priority is None else priority_of(parameters.priority),
            ordered=request.ordered if parameters.ordered is None else parameters.ordered,
            forward=request.forward if parameters.forward is None else parameters.forward,
            delivery_timeout_ms=request.delivery_timeout_ms if timeout is None else timeout,
        )
        restart = parameters.filter is not None
        if parameters.filter is not None:
            wanted = self._range(parameters.filter)
            if self._session.profile.fixed_fields:
                wanted = self._narrowed(request, *wanted)
                woken = self._is_offer and changed.forward and not request.forward
                restart = woken or wanted[:2] != (request.start_group, request.start_frame)
            start_group, start_frame, end_group, end_frame = wanted
            changed = attrs.evolve(
                changed, start_group=start_group, start_frame=start_frame, end_group=end_group, end_frame=end_frame
            )
        self.request = changed
        return SubscribeUpdate(
            changed.priority,
            changed.ordered,
            changed.max_age_ms,
            changed.start_group,
            changed.end_group,
            changed.start_frame,
            changed.end_frame,
            forward=changed.forward,
            delivery_timeout_ms=changed.delivery_timeout_ms,
            restart=restart,
        )

    def resumed(self, newest: tuple[int, int] | None) -> None:
        """Called when an update has ended a pause, with the place of the newest frame: its answer says so."""
        self._updates.resumed(largest_of(newest))

    def _narrowed(
        self,
        request: Subscribe,
        start_group: int | None,
        start_frame: int,
        end_group: int | None,
        end_frame: int | None,
    ) -> tuple[int | None, int, int | None, int | None]:
        """Return the range of an update of draft 14, which names all of it, and may only narrow it."""
        before = (-1, 0) if request.start_group is None else (request.start_group, request.start_frame)
        if start_group is None or (start_group, start_frame) <= max(before, (0, 0)):
            start_group, start_frame = request.start_group, request.start_frame
        if end_group is None or (request.end_group is not None and end_group >= request.end_group):
            end_group, end_frame = request.end_group, request.end_frame
        return start_group, start_frame, end_group, end_frame

    def answer_updates(self) -> bytes:
        """Return a REQUEST_OK for each update that was not answered; b"" before the subscription is accepted."""
        return b"" if self._over or not self.accepted else self._updates.take()

    def _on_release(self) -> None:
        if self.request is not None:
            self._session.peers.release(self.request.subscribe_id)
            self._session.streams_opened.pop(self.request.subscribe_id, None)


def largest_of(newest: tuple[int, int] | None) -> Location | None:
    """Return the newest object of a track, by the place of its newest frame."""
    return None if newest is None else Location(*newest)


class SubscribeRequester(IetfRequester):
    """We subscribe to a track of the peer's.

    Events: `SubscribeOk`, `UpdateAnswered` for each update, then `RequestFinished` (PUBLISH_DONE or FIN) or
    `RequestRefused`; or `AliasShared` alone.

    Attributes:
        joins: True when it starts behind the newest object, and wants what that object's group had before.
        fills: True when it has asked for that itself.
    """

    _first: ClassVar = Expect.SUBSCRIBE_REPLY
    _start = Start.NEXT_OBJECT

    def __init__(
        self,
        session: IetfState,
        path: BroadcastPath,
        track: str,
        wanted: SubscribeUpdate,
        rendezvous_ms: int = 0,
        start: StartPlace = "latest_group",
    ) -> None:
        super().__init__(session)
        self._start = Start.NEXT_GROUP if start == "next_group" else Start.NEXT_OBJECT
        format_requested(path, track, session.dialect, session.limits)
        parameters = self._parameters(wanted)
        opening = attrs.evolve(
            parameters,
            # Left out, they have these values.
            forward=None if parameters.forward else False,
            delivery_timeout_ms=parameters.delivery_timeout_ms or None,
            rendezvous_ms=rendezvous_ms or None,
            ordered=wanted.ordered,
        )
        self.joins = wanted.start_group is None and wanted.forward and start == "latest_group"
        self.fills = self.joins and session.profile.fetch_filter
        if self.fills:
            opening = attrs.evolve(opening, fill=_NEWEST_GROUP)
        self._ask(ietf.Subscribe(0, track_name(path, track), opening))
        self._current = wanted
        self._state = RequestState.PENDING
        self._updates = SentUpdates(session, parameters)
        self._refused_update: int | None = None

    def join(self, group: int) -> FetchRequester:
        """Fetch what the newest group had when the subscription began (up to draft 19)."""
        return joining_fetch(self._session, self.subscribe_id, group)

    @property
    def subscribe_id(self) -> int:
        """The request's id."""
        return self.request_id

    def _on_made(self, request_id: int) -> None:
        session = self._session
        session.issued.add(request_id)
        self._updates.existing_id = self._reply_id(request_id)
        if self.fills:
            session.replies[request_id] = FetchedFrames(session.profile, session.limits)

    def _parameters(self, wanted: SubscribeUpdate) -> Parameters:
        """Return what an update may change, each with a value of its own."""
        if wanted.start_group is None:
            if wanted.end_group is not None:
                raise LocalProtocolError(f"{self._session.dialect.name} can end a subscription that starts at a group")
            place: Filter | tuple[()] = Filter(self._start)
        else:
            place = Filter(Location(wanted.start_group, wanted.start_frame), wanted.end_group, wanted.end_frame)
            if place == _EVERYTHING and self._session.profile.filter_form == "counted":
                # There this start has no other form.
                place = ()
        return Parameters(
            priority=wire_priority(wanted.priority),
            filter=place,
            forward=wanted.forward,
            delivery_timeout_ms=wanted.delivery_timeout_ms,
        )

    def update(self, **changes: Unpack[SubscriptionChanges]) -> bytes:
        """Return REQUEST_UPDATE with what changes; b"" when nothing does, and once the publisher has ended it.

        No draft changes the order of groups later: `ordered` holds for this side alone.
        """
        changed = attrs.evolve(self._current, **changes)
        parameters = self._parameters(changed)
        if self._closed or self._state is not RequestState.ACCEPTED:
            return b""
        data = self._updates.change(parameters)
        self._current = changed
        return data

    def take_update(self) -> bytes:
        """Return the update that has been waiting for the answer of an earlier one; to be called with each answer."""
        return self._updates.answered() if self._state is RequestState.ACCEPTED else b""

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case ietf.SubscribeOk() if self._state is RequestState.PENDING:
                session = self._session
                info = track_info(message.properties, session.profile, session.limits)
                shared = session.profile.draft >= SHARED_ALIASES
                if not session.aliases.name_untrusted(message.alias, self.subscribe_id, shared=shared):
                    self._closed = True
                    events.append(AliasShared())
                    return
                self._state = RequestState.ACCEPTED
                largest = message.parameters.largest
                reply = self._session.replies.get(self.subscribe_id)
                if reply is not None and largest is not None:
                    reply.group = largest.group
                events.append(SubscribeOk(None, newest=largest, info=info))
            case ietf.RequestError() if self._state is RequestState.PENDING:
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case ietf.RequestOk() | ietf.RequestError() if self._updates.unanswered:
                self._on_answer(message, events)
            case ietf.PublishDone() if self._state is RequestState.ACCEPTED:
                self._on_done(message, events)
            case ietf.Goaway() | ietf.PublishStateNotify():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_answer(self, message: ietf.RequestOk | ietf.RequestError, events: list[Event]) -> None:
        """Read the answer of an update. A refusal ends the subscription, by the PUBLISH_DONE that follows it."""
        if isinstance(message, ietf.RequestError):
            self._refused_update = code_of_request(message.code, self._session.profile)
        events.append(UpdateAnswered(message.parameters.largest if isinstance(message, ietf.RequestOk) else None))

    def _on_done(self, message: ietf.PublishDone, events: list[Event]) -> None:
        self._state = RequestState.ENDED
        self._updates.end()
        if message.status in (_TRACK_ENDED, _SUBSCRIPTION_ENDED):
            known = message.streams and message.streams not in ietf.UNKNOWN_STREAMS
            read = self._session.streams_read.get(self.subscribe_id, 0)
            events.append(RequestFinished(max(message.streams - read, 0) if known else None))
        elif message.status == _UPDATE_FAILED and self._refused_update is not None:
            events.append(RequestRefused(self._refused_update))
        else:
            events.append(RequestRefused(self._code_of_end(message.status)))

    def _code_of_end(self, status: int) -> int:
        """Return the code of this library that a status of PUBLISH_DONE stands for."""
        # EXPIRED and TOO_FAR_BEHIND changed places with draft 18.
        behind = _BEHIND_FROM_18 if self._session.profile.draft >= 18 else _BEHIND_BEFORE_18
        codes = {
            _GOING_AWAY: StreamCode.GOING_AWAY,
            behind: StreamCode.TOO_FAR_BEHIND,
            _MALFORMED: StreamCode.MALFORMED_TRACK,
        }
        return codes.get(status, StreamCode.INTERNAL_ERROR)

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is not RequestState.ENDED:
            events.append(RequestFinished())

    def _on_reset(self, code: int) -> list[Event]:
        return [] if self._state is RequestState.ENDED else [RequestRefused(code)]

    def _on_release(self) -> None:
        self._updates.end()
        self._session.replies.pop(self.request_id, None)
        self._session.streams_read.pop(self.request_id, None)
        self._session.issued.release(self.request_id)
        self._session.aliases.forget(self.request_id)
