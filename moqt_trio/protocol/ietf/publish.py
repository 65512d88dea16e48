"""PUBLISH: a subscription that its publisher opens, and its subscriber may leave asleep.

The stream carries PUBLISH, then what a subscription's publisher says, and PUBLISH_DONE at last. The other side answers,
and changes the subscription by REQUEST_UPDATE. So the two machines here are those of `subscribe.py` with the roles of
opener and answerer exchanged, and the session drives them as it drives those.

Up to draft 19 the acceptance says what the subscriber wants. From 20 on an update says so.

Spec: draft-ietf-moq-transport-18, sections 5.1 and 9.13 to 9.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Unpack

import attrs

from ...errors import LocalProtocolError, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.filters import Filter, Start
from ...wire.ietf.parameters import NONE, Parameters
from ...wire.messages import Expect, Message, Subscribe, SubscribeUpdate
from ..events import Event, RequestCancelled
from ..machine import RequestState
from .events import PublishRequested
from .machine import IetfMachine, code_of_request, number_in, request_code, text_of, track_name
from .namespaces import path_of
from .subscribe import SHARED_ALIASES, SubscribeRequester, SubscribeResponder, largest_of
from .track_properties import UNSUPPORTED_EXTENSION, properties_of_track, track_info
from .updates import SentUpdates

if TYPE_CHECKING:
    from ...wire.messages import TrackInfo
    from ..subscribe import StartPlace, SubscriptionChanges
    from .state import IetfState

UNINTERESTED: Final = 0x20
"""The code of REQUEST_ERROR for a track that this side does not want."""
DUPLICATE_SUBSCRIPTION: Final = 0x19
"""The same for one that was offered already, up to draft 18."""
_DUPLICATES_FROM = 16
_ACCEPTANCE_WITH_WISHES = 19
"""Up to this draft the acceptance has what the subscriber wants; what it leaves out has its default."""
_DEFAULT_PRIORITY = 127


class PublishResponder(SubscribeRequester):
    """The peer offers a track: this side is its subscriber.

    Events: `PublishRequested` once, `UpdateAnswered` for each update, then `RequestFinished` or `RequestRefused`.

    Attributes:
        problem: The code with which the offer has to be refused; None for one that may be accepted.
        info: The track's properties; None before the offer.
    """

    _first: ClassVar = Expect.SUBSCRIBE
    _answers_to: ClassVar = ietf.Answered.PUBLISH

    def __init__(self, session: IetfState) -> None:
        # There is no request of this side: only the base of both is what is needed of its construction.
        IetfMachine.__init__(self, session)
        self.problem: int | None = None
        self.info: TrackInfo | None = None
        self._state = RequestState.WAITING
        self._asleep = True
        self._current = SubscribeUpdate(_DEFAULT_PRIORITY, None, forward=False)
        self._updates = SentUpdates(session, NONE)
        self._refused_update = None
        # A reader fetches what it wants of the past by itself.
        self.joins = self.fills = False

    @property
    def request_id(self) -> int:
        """The id of the offer; -1 before it."""
        return -1 if self._request_id is None else self._request_id

    @property
    def opening(self) -> bytes:  # type: ignore[override]
        """Nothing: it is the peer who opens the stream."""
        return b""

    @property
    def knows_duplicates(self) -> bool:
        """True where the draft has a code for a second subscription to one track."""
        return _DUPLICATES_FROM <= self._session.profile.draft < SHARED_ALIASES

    @property
    def unanswered(self) -> int:
        """How many updates wait for their answers."""
        return self._updates.unanswered

    def accept(self) -> bytes:
        """Return the acceptance, with which nothing is sent for now; b"" when the publisher has ended it already.

        Raises:
            LocalProtocolError: There is no offer yet, or it was answered before.
        """
        if self._state is RequestState.ENDED or self._closed:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no offer to accept")
        session = self._session
        self._state = RequestState.ACCEPTED
        if session.profile.draft > _ACCEPTANCE_WITH_WISHES:
            return session.codec.encode(ietf.RequestOk(None)) + self.sleep()
        asleep, request_id = Parameters(forward=False), self._reply_id(self.request_id)
        if session.profile.fixed_fields:
            asleep = attrs.evolve(asleep, filter=Filter(Start.NEXT_OBJECT))
        accepted = (
            ietf.PublishOk(request_id, asleep) if session.profile.publish_ok else ietf.RequestOk(request_id, asleep)
        )
        return session.codec.encode(accepted)

    @property
    def wake_answered(self) -> bool:
        """True when the publisher says where a new reader starts; in draft 14 nothing answers an update."""
        return not self._session.profile.fixed_fields

    def wake(self, start: StartPlace, **changes: Unpack[SubscriptionChanges]) -> bytes:
        """Return REQUEST_UPDATE for a new reader of the track, as `update` does.

        Args:
            start: Where it starts, when the changes name no group. What the newest group has already is fetched apart.
            changes: What it wants.
        """
        self._start = Start.NEXT_GROUP if start == "next_group" else Start.NEXT_OBJECT
        self._asleep = False
        return self.update(**changes)

    def sleep(self) -> bytes:
        """Return REQUEST_UPDATE when the reader has left; b"" when nothing was sent to it."""
        self._asleep = True
        return self.update(forward=False)

    def _parameters(self, wanted: SubscribeUpdate) -> Parameters:
        parameters = super()._parameters(wanted)
        # Without a reader there is no place to start; so each reader names its own, and with it begins anew.
        return attrs.evolve(parameters, filter=None) if self._asleep else parameters

    def refuse(self, number: int) -> bytes:
        """Return REQUEST_ERROR with a number of the draft, after which the stream is finished; b"" when it is late."""
        if self._state is not RequestState.PENDING:
            return b""
        self._state = RequestState.ENDED
        return self._encode_error(self.request_id, number_in(self._session.profile, number))

    def refusal(self, code: int) -> bytes:
        """Return REQUEST_ERROR, as `refuse` does, for a code of this library."""
        return self.refuse(request_code(code))

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case ietf.Publish() if self._state is RequestState.WAITING:
                self._on_publish(message, events)
            case ietf.PublishDone() if self._state in (RequestState.PENDING, RequestState.ACCEPTED):
                self._on_done(message, events)
            case ietf.RequestOk() | ietf.RequestError() if self._updates.unanswered:
                self._on_answer(message, events)
            case ietf.Goaway() | ietf.PublishStateNotify() if self._state is not RequestState.WAITING:
                pass
            case _:
                raise self._broken(f"{type(message).__name__} out of its place")

    def _on_publish(self, message: ietf.Publish, events: list[Event]) -> None:
        session, parameters = self._session, message.parameters
        self._admit_untrusted(message.request_id)
        self._state = RequestState.PENDING
        self._expect = Expect.SUBSCRIBE_REPLY
        path, track = path_of(message.track.namespace, session), text_of(message.track.name)
        apart = session.aliases.name_untrusted(
            message.alias, message.request_id, shared=session.profile.draft >= SHARED_ALIASES
        )
        self._request_id = message.request_id
        session.issued.add(message.request_id)
        if (
            not apart
            or path is None
            or not path.parts
            or track is None
            or len(message.track.name) > session.limits.max_track_name
        ):
            # It is subscribed to already; or no broadcast of this library has such a name.
            self.problem = UNINTERESTED
        else:
            self._read_properties(message)
        self._updates = SentUpdates(session, self._asked_by(parameters))
        self._updates.existing_id = self._reply_id(message.request_id)
        events.append(PublishRequested(path or BroadcastPath(), track or "", parameters.largest))

    def _read_properties(self, message: ietf.Publish) -> None:
        session = self._session
        try:
            self.info = track_info(message.properties, session.profile, session.limits)
        except RemoteProtocolError as error:
            # A property that has to be known, or one that does not decode: only the offer is refused.
            self.problem = UNSUPPORTED_EXTENSION if error.code == UNSUPPORTED_EXTENSION else UNINTERESTED

    def _asked_by(self, parameters: Parameters) -> Parameters:
        """Return what the publisher goes by once the offer is accepted."""
        wanted = self._parameters(self._current)
        if self._session.profile.draft <= _ACCEPTANCE_WITH_WISHES:
            return wanted
        return attrs.evolve(
            wanted,
            forward=parameters.forward is not False,
            priority=wanted.priority if parameters.priority is None else parameters.priority,
            delivery_timeout_ms=parameters.delivery_timeout_ms or 0,
        )

    def _on_fin(self, events: list[Event]) -> None:
        if self._state is RequestState.WAITING:
            raise self._broken("FIN before the request")
        super()._on_fin(events)

    def _on_reset(self, code: int) -> list[Event]:
        return [] if self._state is RequestState.WAITING else super()._on_reset(code)

    def _on_stop(self, code: int) -> list[Event]:
        # A publisher that reads no update and no answer has given the offer up.
        self._closed = True
        return self._on_reset(code)

    def _on_release(self) -> None:
        if self.subscribe_id >= 0:
            super()._on_release()


class PublishRequester(SubscribeResponder):
    """We offer a track to the peer: this side is its publisher, and the offer is served as a subscription is.

    Events: `SubscribeUpdate` for the acceptance, where it says what the subscriber wants, and for each update;
    `UpdateRefused` as in `SubscribeResponder`; `RequestCancelled` for a refusal and for a subscriber that leaves.
    """

    _first: ClassVar = Expect.SUBSCRIBE_REPLY
    _is_offer: ClassVar[bool] = True

    def __init__(
        self,
        session: IetfState,
        path: BroadcastPath,
        track: str,
        *,
        forward: bool,
        newest: tuple[int, int] | None = None,
        info: TrackInfo | None = None,
    ) -> None:
        """Make an offer.

        Args:
            session: What the machines of the session share.
            path: The broadcast's path.
            track: The track's name.
            forward: True to send what is published at once; False until the subscriber asks for it.
            newest: The place of the newest frame; None while there is none.
            info: The track's properties; None writes none.

        Raises:
            LocalProtocolError: The draft cannot carry the names.
        """
        super().__init__(session)
        parameters = Parameters(forward=forward, largest=largest_of(newest))
        name = track_name(path, track)
        properties = () if info is None else properties_of_track(info, session.profile)
        message = ietf.Publish(0, name, 0, parameters, properties)
        # What cannot be said takes no id.
        session.codec.encode(message)
        request_id = session.next_request_id()
        self.opening = session.codec.encode(attrs.evolve(message, request_id=request_id, alias=request_id))
        session.peers.add(request_id)
        self.request = Subscribe(request_id, str(path), track, _DEFAULT_PRIORITY, None, forward=forward)
        self._state = RequestState.ACCEPTED
        self.accepted = True
        self._answered = False

    def accept(
        self, start_group: int | None, latest_group: int | None = None, newest: tuple[int, int] | None = None
    ) -> bytes:
        """Return b"": it is the subscriber who accepts."""
        return b""

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        match message:
            case ietf.RequestOk() | ietf.PublishOk() if not self._answered:
                self._answered = True
                if session.profile.draft <= _ACCEPTANCE_WITH_WISHES and not self._over:
                    wishes = message.parameters
                    events.append(self._change(attrs.evolve(wishes, forward=wishes.forward is not False)))
            case ietf.RequestError() if not self._answered:
                self._answered = True
                if not self._over:
                    self._state = RequestState.CANCELLED
                    events.append(RequestCancelled(code_of_request(message.code, self._session.profile)))
            case ietf.RequestUpdate():
                self._admit_untrusted(message.request_id)
                self._on_update(message, events)
            case ietf.Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} out of its place")
