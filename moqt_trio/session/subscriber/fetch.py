"""One group that this side asked for by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import MoqtError, NotFound, RemoteProtocolError, StreamReset
from ...protocol.events import Event, FramesReceived, RequestFinished, RequestRefused
from ...protocol.machine import events_before
from .group import GroupReader
from .group_buffer import GroupBuffer
from .request import Request, RequestStreamHandler

if TYPE_CHECKING:
    from types import TracebackType

    from ...path import BroadcastPath
    from ...protocol.fetch import FetchRequester
    from ...transport.abc import BidiStream
    from ..context import SessionContext


class FetchReader(GroupReader):
    """One group that was asked for. Use it as `async with session.fetch(path, track, sequence) as group`.

    Reading it raises what reading a `GroupReader` raises, and

    - `NotFound` when the publisher has no such broadcast, track or group,
    - `StreamReset` with CONTROL_TIMEOUT, not by the peer, when nothing has come within `Limits.reply_timeout`,
    - `LocalProtocolError` when the block was not entered.
    """

    def __init__(
        self,
        context: SessionContext,
        path: BroadcastPath,
        track: str,
        machine: FetchRequester,
        sequence: int,
        start_frame: int,
    ) -> None:
        self._context = context
        self._path = path
        self._track = track
        self._machine = machine
        self._frames = GroupBuffer()
        self._request = Request(context, self._frames, "fetch")
        super().__init__(sequence, start_frame, self._frames)

    async def __aenter__(self) -> FetchReader:
        with self._request.entering():
            await self._request.open("fetch", self._attach)
        return self

    def _attach(self, stream: BidiStream) -> _FetchStream:
        self._frames.stream = stream
        self._frames.expect_by(trio.current_time() + self._context.limits.reply_timeout, self._give_up)
        return _FetchStream(self._context, stream, self._machine, self._frames, self._handle, self._failed)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._request.leave()

    def _give_up(self) -> None:
        self._frames.fail(StreamReset(StreamCode.CONTROL_TIMEOUT, by_peer=False))
        self._request.cancel(StreamCode.CONTROL_TIMEOUT)

    def _handle(self, event: Event) -> None:
        match event:
            case FramesReceived():
                self._frames.deliver(event.frames, self._machine.pending_bytes)
            case RequestFinished():
                self._frames.finish()
                self._request.finish()
            case RequestRefused():
                if event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
                    self._frames.fail(NotFound(str(self._path), self._track, f"group {self.sequence}"))
                else:
                    self._frames.fail(StreamReset(event.code))
            case _:
                pass

    def _failed(self, error: MoqtError) -> None:
        self._frames.fail(StreamReset.after(error) if isinstance(error, RemoteProtocolError) else error)


class _FetchStream(RequestStreamHandler):
    """The stream of a fetch: frames keep their credit until they are read."""

    keeps_after_reset = True

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: FetchRequester,
        frames: GroupBuffer,
        handle: Callable[[Event], None],
        failed: Callable[[MoqtError], None],
    ) -> None:
        super().__init__(context, stream, machine, handle, failed)
        self._fetch = machine
        self._frames = frames

    def data_received(self, data: bytes, fin: bool) -> None:
        machine = self._fetch
        # Any part of an answer is one: how long the rest may take is for the caller to say.
        self._frames.wait_on()
        before = machine.pending_bytes
        broken: RemoteProtocolError | None = None
        try:
            events = machine.receive_data(data, fin)
        except RemoteProtocolError as error:
            broken, events = error, events_before(error)
        owed = machine.pending_bytes - before
        for event in events:
            if isinstance(event, FramesReceived):
                owed += sum(frame.wire_size for frame in event.frames)
        self.stream.consumed(len(data) - owed)
        self._handle_all(events)
        if not any(isinstance(event, FramesReceived) for event in events):
            self._frames.deliver([], machine.pending_bytes)
        if broken is not None:
            self._broken(broken)
