"""TRACK_STATUS one way, REQUEST_OK and FIN the other: what SUBSCRIBE_OK would say, without a subscription.

Spec: draft-ietf-moq-transport-18, section 9.18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...errors import LocalProtocolError
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.filters import Filter, Start
from ...wire.ietf.parameters import NONE, Parameters
from ...wire.messages import Expect, Message, TrackInfo
from ..events import Event, RequestRefused, TrackInfoRequested
from ..machine import RequestState
from ..paths import format_requested
from .events import TrackStatusReceived
from .machine import IetfRequester, IetfResponder, code_of_request, text_of, track_name
from .namespaces import path_of
from .subscribe import largest_of
from .track_properties import properties_of_track, track_info

if TYPE_CHECKING:
    from .state import IetfState


class TrackStatusResponder(IetfResponder):
    """The peer asks for the status of a track of ours.

    Events: `TrackInfoRequested`, and `RequestCancelled` when the peer cancels before the reply.
    """

    _first: ClassVar = Expect.TRACK_REQUEST
    _answers_to: ClassVar = ietf.Answered.TRACK_STATUS

    def __init__(self, session: IetfState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)

    def reply(self, info: TrackInfo, newest: tuple[int, int] | None = None) -> bytes:
        """Return REQUEST_OK; the caller writes it with FIN. Returns b"" once the peer has cancelled.

        Args:
            info: The track's properties.
            newest: The place of the newest frame; None while there is none.

        Raises:
            LocalProtocolError: There is no request yet, or it was answered before.
        """
        if self._state is RequestState.CANCELLED:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no request to answer")
        self._state = RequestState.FINISHED
        largest = largest_of(newest)
        parameters = NONE if largest is None else Parameters(largest=largest)
        profile = self._session.profile
        if profile.fixed_fields:
            return self._session.codec.encode(ietf.TrackStatusOk(self._request_id, parameters))
        properties = properties_of_track(info, profile) if profile.properties == "ok" else ()
        return self._session.codec.encode(ietf.RequestOk(self._reply_id(self._request_id), parameters, properties))

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if isinstance(message, ietf.TrackStatus) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._state = RequestState.PENDING
            path, track = path_of(message.track.namespace, self._session), text_of(message.track.name)
            if path is None or track is None:
                # No broadcast has the empty path, nor one that no path can be.
                path, track = BroadcastPath(), ""
            events.append(TrackInfoRequested(path, track))
        elif not isinstance(message, ietf.Goaway):
            raise self._broken(f"{type(message).__name__} out of its place")

    def _on_fin(self, events: list[Event]) -> None:
        # The request is whole: nothing follows it.
        if self._state is RequestState.WAITING:
            raise self._broken("FIN before the request")

    def _on_release(self) -> None:
        self._session.requests.give_back()


class TrackStatusRequester(IetfRequester):
    """We ask for the status of a track of the peer's.

    Events: `TrackStatusReceived` or `RequestRefused`. The end of the stream after the reply has no event.
    """

    _first: ClassVar = Expect.TRACK_INFO

    def __init__(self, session: IetfState, broadcast: BroadcastPath | str, track: str) -> None:
        super().__init__(session)
        path = BroadcastPath.parse(broadcast)
        format_requested(path, track, session.dialect, session.limits)
        # In draft 14 a filter has to stand there, and says nothing.
        parameters = Parameters(filter=Filter(Start.NEXT_OBJECT)) if session.profile.fixed_fields else NONE
        self._ask(ietf.TrackStatus(0, track_name(path, track), parameters))
        self._answered = False

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case ietf.RequestOk() | ietf.TrackStatusOk() if not self._answered:
                self._answered = True
                session = self._session
                info = None
                if session.profile.properties == "ok" and isinstance(message, ietf.RequestOk):
                    info = track_info(message.properties, session.profile, session.limits)
                events.append(TrackStatusReceived(message.parameters.largest, info))
            case ietf.RequestError() if not self._answered:
                self._answered = True
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case ietf.Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_fin(self, events: list[Event]) -> None:
        if not self._answered:
            raise self._broken("FIN before the answer")

    def _on_reset(self, code: int) -> list[Event]:
        return [] if self._answered else [RequestRefused(code)]
