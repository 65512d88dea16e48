"""One group that this side asked for by its number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .codes import StreamCode
from .driver import MachineSink, SessionDriver
from .errors import MoqtError, NotFound, RemoteProtocolError
from .group_reader import GroupReader
from .session.events import Event, FramesReceived, RequestFinished, RequestRefused
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from types import TracebackType

    from .model.frame import Frame
    from .path import BroadcastPath
    from .session.fetch import FetchSubscriber


class FetchReader(GroupReader):
    """One group that was asked for. Use it as `async with session.fetch(path, track, sequence) as group`."""

    def __init__(
        self,
        driver: SessionDriver,
        path: BroadcastPath,
        track: str,
        machine: FetchSubscriber,
        sequence: int,
        start_frame: int,
    ) -> None:
        super().__init__(sequence, start_frame, None)
        self._driver = driver
        self._path = path
        self._track = track
        self._machine = machine
        self._sink: _FetchSink | None = None
        self._answer_by = math.inf

    async def receive(self) -> Frame:
        """Waits for the next frame and returns it. Cancelling loses nothing.

        Raises: as `GroupReader.receive`, and
            NotFound: The publisher has no such broadcast, track or group.
            StreamReset: Also when nothing has come within `Limits.reply_timeout`, with CONTROL_TIMEOUT.
        """
        while self._answer_by != math.inf:
            with trio.CancelScope(deadline=self._answer_by):
                return await super().receive()
            if self._answer_by != math.inf:
                self._give_up()
        return await super().receive()

    def _give_up(self) -> None:
        self._answer_by = math.inf
        self.deliver_error(StreamReset(StreamCode.CONTROL_TIMEOUT, by_peer=False))
        if self._sink is not None:
            self._sink.cancel(StreamCode.CONTROL_TIMEOUT)

    async def __aenter__(self) -> FetchReader:
        self._driver.check_open()
        stream = await self._driver.connection.open_bidi()
        self._stream = stream
        self._answer_by = trio.current_time() + self._driver.limits.reply_timeout
        self._sink = sink = _FetchSink(self._driver, stream, self._machine)
        sink.reader = self
        self._driver.spell_codes(stream, "fetch")
        stream.write(self._machine.opening)
        stream.sink = sink
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self._sink is not None:
            self._sink.cancel()

    def handle(self, event: Event) -> None:
        """Takes what the stream says; for the session's driver."""
        match event:
            case FramesReceived():
                self.deliver(event.frames, self._machine.pending_bytes)
            case RequestFinished():
                self.deliver_finish()
                if self._sink is not None:
                    self._sink.stream.finish()
            case RequestRefused():
                if event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
                    self.deliver_error(NotFound(str(self._path), self._track, f"group {self.sequence}"))
                else:
                    self.deliver_error(StreamReset(event.code))
            case _:
                pass

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        self.deliver_error(error)


class _FetchSink(MachineSink):
    """The stream of a fetch: frames keep their credit until they are read."""

    keeps_after_reset = True
    reader: FetchReader

    def data_received(self, data: bytes, fin: bool) -> None:
        machine = self.reader._machine
        # Any part of an answer is one: how long the rest may take is for the caller to say.
        self.reader._answer_by = math.inf
        before = machine.pending_bytes
        try:
            events = machine.receive_data(data, fin)
        except RemoteProtocolError as error:
            self._broken(error)
            return
        owed = machine.pending_bytes - before
        for event in events:
            if isinstance(event, FramesReceived):
                owed += sum(frame.wire_size for frame in event.frames)
        self.stream.consumed(len(data) - owed)
        self._handle_all(events)
        if not any(isinstance(event, FramesReceived) for event in events):
            self.reader.deliver([], machine.pending_bytes)

    def handle(self, event: Event) -> None:
        """Takes what the stream says; for the session's driver."""
        self.reader.handle(event)

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        self.reader.failed(error)
