"""The fetch stream: FETCH one way, the frames of one group the other, FIN at their end.

Spec: draft-lcurley-moq-lite-06, section 7 (FETCH).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ..codes import StreamCode
from ..errors import LocalProtocolError, Malformed
from ..wire.messages import Expect, Fetch, FetchUpdate, Message, StreamKind
from .events import Event, FetchRequested, FramesReceived, RequestFinished, RequestRefused
from .machine import CountedResponder, RequestState, StreamMachine
from .paths import path_untrusted

if TYPE_CHECKING:
    from ..frame import Frame
    from .state import SessionState


class FetchResponder(CountedResponder):
    """The peer fetches one group of ours. The caller finishes the stream after the last frame, or resets it.

    Events: `FetchRequested`, `FetchUpdate` where the version has updates, `RequestCancelled`.

    Attributes:
        request: What the peer asked for, as it wrote it; None until it arrived.
    """

    _error_code: ClassVar[int] = StreamCode.MALFORMED_TRACK

    _first = Expect.FETCH

    def __init__(self, session: SessionState) -> None:
        super().__init__(session)
        self.request: Fetch | None = None
        self._encoder = session.dialect.frame_encoder()

    def frames(self, frames: Sequence[Frame]) -> bytes:
        """Return the bytes of some frames, in order; b"" once the peer has cancelled.

        Raises:
            LocalProtocolError: There is no request yet, or a frame can't be carried: none of them counts as sent.
        """
        if self.request is None:
            raise LocalProtocolError("there is no fetch to answer yet")
        if self._over:
            return b""
        return self._encoder.encode(frames)

    def finish(self) -> None:
        """Record that this side finished the stream: the peer's FIN or reset is no cancellation any more."""
        self._state = RequestState.FINISHED

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if isinstance(message, FetchUpdate):
            events.append(message)
            return
        assert isinstance(message, Fetch)
        path = path_untrusted(message.broadcast, self._session.limits)
        self.request = message
        self._state = RequestState.PENDING
        self._expect = Expect.FETCH_UPDATE if self._session.dialect.features.fetch_update else None
        events.append(FetchRequested(path, message))


class FetchRequester(StreamMachine):
    """We fetch one group of the peer's. Our half stays open until the reply is complete: a FIN would cancel.

    Events: `FramesReceived`, then `RequestFinished` or `RequestRefused`.

    Attributes:
        frames: Reads the frames. Bytes may be fed to it directly, which gives the frames without an event; after its
            exception, call `release`.
    """

    def __init__(self, session: SessionState, request: Fetch) -> None:
        self.opening = session.dialect.stream_type(StreamKind.FETCH) + session.dialect.encode(request)
        self._dialect = session.dialect
        self.frames = session.dialect.frame_decoder(session.limits)

    def update(self, priority: int) -> bytes:
        """Return FETCH_UPDATE; b"" once the reply is complete.

        Raises:
            LocalProtocolError: The version has no such message, or the priority is not in 0 … 255.
        """
        data = self._dialect.encode(FetchUpdate(priority))
        return b"" if self._closed else data

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        frames: list[Frame] = []
        sizes: list[int] = []
        try:
            self.frames.feed_untrusted(data, frames, sizes)
        finally:
            if frames:
                events.append(FramesReceived(frames, sizes))
        if fin:
            self._closed = True
            if self.frames.pending_bytes:
                raise Malformed("FIN inside a frame", code=StreamCode.MALFORMED_TRACK, scope="stream")
            events.append(RequestFinished())

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]
