"""The fetch stream: FETCH one way, the frames of one group the other, FIN at their end.

Spec: draft-lcurley-moq-lite-06, section 7 (FETCH).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ..codes import StreamCode
from ..errors import LocalProtocolError, Malformed, ProtocolError
from ..wire.messages import Expect, Fetch, FetchUpdate, Message, StreamKind
from .events import Event, FetchRequested, FramesReceived, RequestFinished, RequestRefused
from .machine import Responder, StreamMachine, note_events
from .paths import path_untrusted

if TYPE_CHECKING:
    from ..frame import Frame
    from .state import SessionState


class FetchResponder(Responder):
    """The peer fetches one group of ours. The driver finishes the stream after the last frame, or resets it.

    Events: `FetchRequested`, `FetchUpdate` where the version has updates, `RequestCancelled`.

    Attributes:
        request: What the peer asked for, as it wrote it; None until it arrived.
    """

    _error_code: ClassVar[int] = StreamCode.MALFORMED_TRACK

    def __init__(self, state: SessionState) -> None:
        super().__init__(state, Expect.FETCH)
        self.request: Fetch | None = None
        self._encoder = state.dialect.frame_encoder()

    def frames(self, frames: Sequence[Frame]) -> bytes:
        """Returns the bytes of some frames, in order; b"" once the peer has cancelled.

        Raises:
            LocalProtocolError: There is no request yet, or a frame can't be carried: none of them counts as sent.
        """
        if self.request is None:
            raise LocalProtocolError("there is no fetch to answer yet")
        if self._settled:
            return b""
        return self._encoder.encode(frames)

    def finish(self) -> None:
        """Notes that this side finished the stream: the peer's FIN or reset is no cancellation any more."""
        self._settled = True

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if isinstance(message, FetchUpdate):
            events.append(message)
            return
        assert isinstance(message, Fetch)
        path = path_untrusted(message.broadcast, self._state.limits)
        self.request = message
        self._asked = True
        self._expect = Expect.FETCH_UPDATE if self._state.dialect.features.fetch_update else None
        events.append(FetchRequested(path, message))

    def _on_release(self) -> None:
        self._state.requests.give_back()


class FetchRequester(StreamMachine):
    """We fetch one group of the peer's. Our half stays open until the reply is complete: a FIN would cancel.

    Events: `FramesReceived`, then `RequestFinished` or `RequestRefused`.
    """

    def __init__(self, state: SessionState, request: Fetch) -> None:
        self.opening = state.dialect.stream_type(StreamKind.FETCH) + state.dialect.encode(request)
        self._dialect = state.dialect
        self._frames = state.dialect.frame_decoder(state.limits)
        self._deaf = False

    @property
    def pending_bytes(self) -> int:
        """Bytes that arrived and belong to a frame that is not complete."""
        return self._frames.pending_bytes

    def update(self, priority: int) -> bytes:
        """Returns FETCH_UPDATE; b"" once the reply is complete.

        Raises:
            LocalProtocolError: The version has no such message, or the priority is not in 0 … 255.
        """
        data = self._dialect.encode(FetchUpdate(priority))
        return b"" if self._deaf else data

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        if self._deaf:
            return []
        events: list[Event] = []
        frames: list[Frame] = []
        sizes: list[int] = []
        try:
            self._frames.feed_untrusted(data, frames, sizes)
            if frames:
                events.append(FramesReceived(frames, sizes))
            if fin:
                if self._frames.pending_bytes:
                    raise Malformed("FIN inside a frame", code=StreamCode.MALFORMED_TRACK, scope="stream")
                self._deaf = True
                events.append(RequestFinished())
        except ProtocolError as error:
            self._deaf = True
            if frames and not events:
                events.append(FramesReceived(frames, sizes))
            note_events(error, events)
            raise
        return events

    def receive_reset(self, code: int) -> list[Event]:
        if self._deaf:
            return []
        self._deaf = True
        return [RequestRefused(code)]

    def release(self) -> None:
        self._deaf = True
