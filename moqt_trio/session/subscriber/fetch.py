"""FetchReader: one group that this side fetches by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from ...codes import StreamCode
from ...errors import MoqtError, NotFound, RemoteProtocolError, StreamReset
from ...frame import Frame
from ...protocol.events import Event, RequestFinished, RequestRefused
from ...tasks import defer_interrupts
from ...timeouts import Timeout
from ..stream import receive_events
from .group import FrameSource, GroupBuffer, GroupReader
from .request import Request, RequestControl, open_control

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...path import BroadcastPath
    from ...protocol.fetch import FetchRequester
    from ...protocol.ietf.fetch import FetchRequester as RangeRequester
    from ...transport.stream import BidiStream
    from ..context import SessionContext


@defer_interrupts
class FetchReader(GroupReader, Request[Frame]):
    """One group that is fetched. Use it as `async with session.fetch(path, track, sequence) as group`.

    Reading it raises what reading a `GroupReader` raises, and

    - `NotFound` when the publisher has no such broadcast, track or group,
    - `StreamReset` with CONTROL_TIMEOUT, not by the peer, when nothing has arrived within `Limits.reply_timeout`,
    - `LocalProtocolError` when the block was not entered.
    """

    _codes: ClassVar[CodeSpace] = "fetch"
    _block = "fetch"
    _line = "session.fetch({}, {}, {}) as group"
    _brings_frames = True

    def __init__(
        self,
        context: SessionContext,
        path: BroadcastPath,
        track: str,
        machine: FetchRequester | RangeRequester,
        sequence: int,
        start_frame: int,
    ) -> None:
        buffer = GroupBuffer(block=self._block)
        Request.__init__(self, context, buffer, str(path), track, sequence)
        GroupReader.__init__(self, sequence, start_frame, buffer)
        self._path = path
        self._track = track
        self._machine = machine

    async def _open(self) -> None:
        self._control = await open_control(self._context, self._codes, self._attach)

    def _attach(self, stream: BidiStream) -> _FetchControl:
        self._frames.stream = stream
        self._frames.expect_within(Timeout(self._context.limits.reply_timeout), self._on_timeout)
        control = _FetchControl(self._context, stream, self._machine, self._frames, self._on_event, self._on_failure)
        self._frames.read_from(control, self._machine.frames, self._context.unread_frames)
        return control

    def _on_timeout(self) -> None:
        self._frames.fail(StreamReset(StreamCode.CONTROL_TIMEOUT, by_peer=False))
        self._cancel(StreamCode.CONTROL_TIMEOUT)

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestFinished():
                self._frames.finish()
                self._finish()
            case RequestRefused():
                if event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
                    self._frames.fail(NotFound(str(self._path), self._track, f"group {self.sequence}"))
                else:
                    self._on_reset(event.code)
            case _:
                pass

    def _on_failure(self, error: MoqtError) -> None:
        self._frames.fail(StreamReset.after(error) if isinstance(error, RemoteProtocolError) else error)


class _FetchControl(RequestControl, FrameSource):
    """The stream of a fetch: frames keep their credit until they are read."""

    keeps_after_reset = True

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: FetchRequester | RangeRequester,
        frames: GroupBuffer,
        on_event: Callable[[Event], None],
        on_failure: Callable[[MoqtError], None],
    ) -> None:
        super().__init__(context, stream, machine, on_event, on_failure)
        self._frames = frames

    def broken(self, error: RemoteProtocolError) -> None:
        self.handle_all([], error)

    def closed(self) -> None:
        """Nothing: the request ends with its block."""

    def finished(self) -> None:
        self.handle_all(*receive_events(self.machine, b"", True))

    def data_received(self, data: bytes, fin: bool) -> None:
        # The first bytes end the library's timeout; how long the rest may take is the caller's decision.
        self._frames.wait_on()
        self._frames.feed(data, fin=fin)
