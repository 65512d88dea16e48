"""The track stream: TRACK one way, one TRACK_INFO and FIN the other.

Spec: draft-lcurley-moq-lite-06, section 7 (TRACK and TRACK_INFO).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from ..wire.messages import Expect, Message, StreamKind, TrackInfo, TrackRequest
from .events import Event, RequestRefused, TrackInfoRequested
from .machine import CountedResponder, MessageMachine, RequestState
from .paths import format_requested, path_untrusted

if TYPE_CHECKING:
    from ..path import BroadcastPath
    from .state import SessionState


class TrackInfoResponder(CountedResponder):
    """The peer asks for the properties of a track of ours.

    Events: `TrackInfoRequested`, and `RequestCancelled` when the peer cancels before the reply.
    """

    _first = Expect.TRACK_REQUEST

    def reply(self, info: TrackInfo, newest: tuple[int, int] | None = None) -> bytes:
        """Return TRACK_INFO; the caller writes it with FIN. Returns b"" once the peer has cancelled.

        Args:
            info: The properties.
            newest: The place of the newest frame, which these versions do not carry.

        Raises:
            LocalProtocolError: There is no request yet, it was answered before, or a value is out of range.
        """
        if self._state is RequestState.WAITING:
            raise LocalProtocolError("there is no request to answer yet")
        if self._state is RequestState.FINISHED:
            raise LocalProtocolError("the request was answered before")
        data = self._session.dialect.encode(info)
        if self._over:
            return b""
        self._state = RequestState.FINISHED
        return data

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, TrackRequest)
        path = path_untrusted(message.broadcast, self._session.limits)
        self._state = RequestState.PENDING
        self._expect = None
        events.append(TrackInfoRequested(path, message.track))


class TrackInfoRequester(MessageMachine):
    """We ask for the properties of a track of the peer's. Our half stays open until the reply: a FIN would cancel.

    Events: `TrackInfo` or `RequestRefused`. The end of the stream after the reply has no event.
    """

    _first = Expect.TRACK_INFO

    def __init__(self, session: SessionState, broadcast: BroadcastPath | str, track: str) -> None:
        super().__init__(session)
        request = TrackRequest(format_requested(broadcast, track, session.dialect, session.limits), track)
        self.opening = session.dialect.stream_type(StreamKind.TRACK) + session.dialect.encode(request)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, TrackInfo)
        self._expect = None
        events.append(message)

    def _on_fin(self, events: list[Event]) -> None:
        if self._expect is not None:
            raise self._broken("FIN before TRACK_INFO")

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)] if self._expect is not None else []
