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
from ...errors import LocalProtocolError, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.fetched_frames import FetchedFrames
from ...wire.ietf.filters import Filter, Start
from ...wire.ietf.names import Location
from ...wire.ietf.parameters import Parameters
from ...wire.messages import Expect, Message, Subscribe, SubscribeOk, SubscribeUpdate
from ..events import Event, PastRange, RequestFinished, RequestRefused, SubscribeRequested
from ..machine import RequestState
from ..paths import format_requested
from .fetch import FetchRequester, ReplySender, joining_fetch, past_range
from .machine import (
    MAX_UPDATES,
    TOO_MANY_UPDATES,
    IetfMachine,
    IetfResponder,
    code_of_request,
    priority_of,
    text_of,
    track_name,
    wire_priority,
)
from .namespaces import path_of

if TYPE_CHECKING:
    from ..subscribe import SubscriptionChanges
    from .state import IetfState

_TRACK_ENDED = 0x2
_SUBSCRIPTION_ENDED = 0x3
_SHARED_ALIASES = 19
"""From this draft on a publisher may give several subscriptions to one track one alias."""
_EVERYTHING = Filter(Location(0, 0))
_NEWEST_GROUP = Parameters(filter=Filter(1))
_BEHIND_FROM_18 = 0x5
_BEHIND_BEFORE_18 = 0x6


class SubscribeResponder(IetfResponder):
    """The peer subscribes to a track of ours.

    Events: `SubscribeRequested` once, `SubscribeUpdate` for each update, `RequestCancelled`.

    Attributes:
        request: What the peer asked for; None until it arrived.
        accepted: True once `accept` was called.
        fill: What of the past is sent on a stream of its own, once the subscription is accepted; None for nothing.
        fill_priority: The subscriber's priority of it.
        start: Where delivery starts when `request` names no group: `"object"` is behind the newest one, a number so
            many groups before the next one.
    """

    _first: ClassVar = Expect.SUBSCRIBE

    request: Subscribe | None = None
    accepted = False
    fill: PastRange | None = None
    fill_priority = 0
    _unanswered = 0
    start: Literal["latest", "object"] | int = "object"

    def accept(
        self, start_group: int | None, latest_group: int | None = None, newest: tuple[int, int] | None = None
    ) -> bytes:
        """Return SUBSCRIBE_OK; to be called once.

        Args:
            start_group: Not carried.
            latest_group: Not carried.
            newest: The newest frame, as its group and its index; None before the first one.

        Raises:
            LocalProtocolError: There is no request yet, or it was answered before.
        """
        if self._over:
            return b""
        if self.request is None or self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no subscription to accept")
        largest = None if newest is None else Location(*newest)
        self.accepted = True
        self._state = RequestState.ACCEPTED
        alias = self.request.subscribe_id
        return self._session.codec.encode(ietf.SubscribeOk(None, alias, Parameters(largest=largest)))

    def reply(self, *, descending: bool, priority: int) -> ReplySender:
        """Send what `fill` asks for; the arguments are those of `ReplySender`."""
        assert self.request is not None
        return ReplySender(self._session, self.request.subscribe_id, descending=descending, priority=priority)

    def end(self, group: int) -> bytes:
        """Return PUBLISH_DONE, which follows the last group; FIN follows it."""
        if self._over:
            return b""
        if self.request is None or self._state is RequestState.ENDED:
            raise LocalProtocolError("there is no subscription to end")
        if self._state is RequestState.PENDING:
            return self.refusal(StreamCode.NOT_FOUND)
        self._state = RequestState.ENDED
        streams = self._session.streams_opened.get(self.request.subscribe_id, 0)
        return self._session.codec.encode(ietf.PublishDone(None, _TRACK_ENDED, streams))

    def drop(self, first: int, last: int, code: int = 0) -> bytes:
        """Return b"": no draft reports groups that are not delivered."""
        return b""

    def finish(self) -> None:
        """Record that this side finished the stream."""
        self._state = RequestState.FINISHED

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, ietf.Subscribe) and self._state is RequestState.WAITING:
            session.requests_of_peer.check_untrusted(message.request_id)
            self._on_subscribe(message, events)
        elif isinstance(message, ietf.RequestUpdate) and self.request is not None:
            session.requests_of_peer.check_untrusted(message.request_id)
            self._on_update(message.parameters, events)
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
        )
        if parameters.fill is not None and parameters.forward is not False:
            self.fill = past_range(parameters.fill.filter, descending=parameters.fill.ordered is False)
            given = parameters.fill.priority
            self.fill_priority = self.request.priority if given is None else priority_of(given)
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

    def _on_update(self, parameters: Parameters, events: list[Event]) -> None:
        assert self.request is not None
        self._unanswered += 1
        if self._unanswered > MAX_UPDATES:
            problem = f"more than {MAX_UPDATES} updates whose answers are not taken"
            raise RemoteProtocolError(problem, code=TOO_MANY_UPDATES)
        request = self.request
        changed = attrs.evolve(
            request,
            priority=request.priority if parameters.priority is None else priority_of(parameters.priority),
            ordered=request.ordered if parameters.ordered is None else parameters.ordered,
        )
        if parameters.filter is not None:
            start_group, start_frame, end_group, end_frame = self._range(parameters.filter)
            changed = attrs.evolve(
                changed, start_group=start_group, start_frame=start_frame, end_group=end_group, end_frame=end_frame
            )
        self.request = changed
        events.append(
            SubscribeUpdate(
                changed.priority,
                changed.ordered,
                changed.max_age_ms,
                changed.start_group,
                changed.end_group,
                changed.start_frame,
                changed.end_frame,
            )
        )

    def answer_updates(self) -> bytes:
        """Return a REQUEST_OK for each update that was not answered; b"" before the subscription is accepted."""
        if self._over or not self.accepted:
            return b""
        count, self._unanswered = self._unanswered, 0
        return self._session.codec.encode(ietf.RequestOk(None)) * count

    def _on_release(self) -> None:
        if self.request is not None:
            self._session.peers.release(self.request.subscribe_id)
            self._session.streams_opened.pop(self.request.subscribe_id, None)


class SubscribeRequester(IetfMachine):
    """We subscribe to a track of the peer's.

    Events: `SubscribeOk`, then `RequestFinished` (PUBLISH_DONE or FIN) or `RequestRefused`.

    Attributes:
        subscribe_id: The request's id.
        joins: True when it starts behind the newest object, and wants what that object's group had before.
        fills: True when it has asked for that itself.
    """

    _first: ClassVar = Expect.SUBSCRIBE_REPLY

    def __init__(self, session: IetfState, path: BroadcastPath, track: str, wanted: SubscribeUpdate) -> None:
        super().__init__(session)
        format_requested(path, track, session.dialect, session.limits)
        parameters = self._parameters(wanted)
        request_id = session.next_request_id()
        self.joins = wanted.start_group is None
        self.fills = self.joins and session.profile.fetch_filter
        if self.fills:
            parameters = attrs.evolve(parameters, fill=_NEWEST_GROUP)
            session.replies[request_id] = FetchedFrames(session.profile, session.limits)
        self.opening = session.codec.encode(ietf.Subscribe(request_id, track_name(path, track), parameters))
        self.subscribe_id = request_id
        session.issued.add(request_id)
        self._current = wanted
        self._state = RequestState.PENDING
        self._updates = 0

    def join(self, group: int) -> FetchRequester:
        """Fetch what the newest group had when the subscription began (up to draft 19)."""
        return joining_fetch(self._session, self.subscribe_id, group)

    def _parameters(self, wanted: SubscribeUpdate) -> Parameters:
        if wanted.start_group is None:
            if wanted.end_group is not None:
                raise LocalProtocolError(f"{self._session.dialect.name} can end a subscription that starts at a group")
            place: Filter | tuple[()] = Filter(Start.NEXT_OBJECT)
        else:
            place = Filter(Location(wanted.start_group, wanted.start_frame), wanted.end_group, wanted.end_frame)
            if place == _EVERYTHING and self._session.profile.filter_form == "counted":
                # There this start has no other form.
                place = ()
        return Parameters(priority=wire_priority(wanted.priority), filter=place, ordered=wanted.ordered)

    def update(self, **changes: Unpack[SubscriptionChanges]) -> bytes:
        """Return REQUEST_UPDATE with what changes; b"" once the publisher has finished or refused."""
        changed = attrs.evolve(self._current, **changes)
        before, after = self._parameters(self._current), self._parameters(changed)
        parameters = Parameters(
            priority=None if before.priority == after.priority else after.priority,
            filter=None if before.filter == after.filter else after.filter,
        )
        if self._closed or self._state is not RequestState.ACCEPTED:
            return b""
        self._current = changed
        self._updates += 1
        return self._session.codec.encode(ietf.RequestUpdate(self._session.next_request_id(), None, parameters))

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case ietf.SubscribeOk() if self._state is RequestState.PENDING:
                shared = self._session.profile.draft >= _SHARED_ALIASES
                self._session.aliases.name_untrusted(message.alias, self.subscribe_id, shared=shared)
                self._state = RequestState.ACCEPTED
                largest = message.parameters.largest
                reply = self._session.replies.get(self.subscribe_id)
                if reply is not None and largest is not None:
                    reply.group = largest.group
                events.append(SubscribeOk(None, newest=largest))
            case ietf.RequestError() if self._state is RequestState.PENDING:
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code)))
            case ietf.RequestOk() | ietf.RequestError() if self._updates:
                self._updates -= 1
            case ietf.PublishDone() if self._state is RequestState.ACCEPTED:
                self._state = RequestState.ENDED
                if message.status in (_TRACK_ENDED, _SUBSCRIPTION_ENDED):
                    events.append(RequestFinished())
                else:
                    events.append(RequestRefused(self._code_of_end(message.status)))
            case ietf.Goaway() | ietf.PublishStateNotify():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _code_of_end(self, status: int) -> int:
        """Return the code of this library that a status of PUBLISH_DONE stands for."""
        # EXPIRED and TOO_FAR_BEHIND changed places with draft 18.
        behind = _BEHIND_FROM_18 if self._session.profile.draft >= 18 else _BEHIND_BEFORE_18
        codes = {0x4: StreamCode.GOING_AWAY, behind: StreamCode.TOO_FAR_BEHIND, 0x12: StreamCode.MALFORMED_TRACK}
        return codes.get(status, StreamCode.INTERNAL_ERROR)

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is not RequestState.ENDED:
            events.append(RequestFinished())

    def _on_reset(self, code: int) -> list[Event]:
        return [] if self._state is RequestState.ENDED else [RequestRefused(code)]

    def _on_release(self) -> None:
        self._session.replies.pop(self.subscribe_id, None)
        self._session.issued.release(self.subscribe_id)
        self._session.aliases.forget(self.subscribe_id)
