"""Group streams and datagrams on their way in, until they reach their subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import MoqtError, RemoteProtocolError, StreamReset
from ...protocol.events import Event, FramesReceived, GroupFinished, GroupReset, GroupStarted, SetupReceived
from ...protocol.group import GroupReceiver
from ...protocol.machine import events_before
from ...transport.abc import ReceiveStream, StreamHandler
from ...wire.messages import StreamKind
from .group import GroupReader
from .group_buffer import GroupBuffer

if TYPE_CHECKING:
    from ...wire.messages import Frame as WireFrame
    from ..context import SessionContext
    from .group_queue import GroupQueue


class GroupStream(StreamHandler):
    """A uni stream that the peer opened: a group of one of our subscriptions, or its SETUP."""

    keeps_after_reset = True
    __slots__ = ("_buffer", "_context", "_group", "_incoming", "_intake", "_spelled", "_stream")

    def __init__(self, context: SessionContext, stream: ReceiveStream) -> None:
        self._context = context
        self._stream = stream
        self._incoming = context.core.accept_uni()
        self._group: GroupReceiver | None = None
        self._buffer: GroupBuffer | None = None
        self._intake: GroupQueue | None = None
        self._spelled = False

    def data_received(self, data: bytes, fin: bool) -> None:
        group = self._group
        before = 0 if group is None else group.pending_bytes
        try:
            events = self._incoming.receive_data(data, fin) if group is None else group.receive_data(data, fin)
        except RemoteProtocolError as error:
            if self._take(events_before(error), data, before):
                self._broken(error)
            return
        self._take(events, data, before)

    def _take(self, events: list[Event], data: bytes, before: int) -> bool:
        """Takes what some bytes said, with how many were pending before; returns False when it refused the group."""
        group = self._group
        frames: list[WireFrame] = []
        begun = finished = False
        for event in events:
            if isinstance(event, FramesReceived):
                frames = event.frames
            elif isinstance(event, GroupStarted):
                if not self._begin(event):
                    self.refuse(StreamCode.CANCELLED)
                    return False
                begun = True
            elif isinstance(event, GroupFinished):
                finished = True
            elif isinstance(event, SetupReceived):
                self._context.setup_received.set()
        if group is None and self._incoming.kind is not None:
            self._context.untyped.discard(self)
        intake, buffer, group = self._intake, self._buffer, self._group
        if intake is None or buffer is None or group is None:
            # Only the stream's type and header so far, or a SETUP: small, and used at once.
            self._stream.consumed(len(data))
            return True
        pending = group.pending_bytes
        owed = pending - before
        if begun:
            owed += group.header_bytes
        for frame in frames:
            owed += frame.wire_size
        if len(data) != owed:
            self._stream.consumed(len(data) - owed)
        if frames:
            intake.count(frames)
        buffer.deliver(frames, pending)
        if finished:
            self._incoming.release()
            buffer.finish()
            intake.end(self, buffer)
        return True

    def _begin(self, event: GroupStarted) -> bool:
        intake = self._context.subscriptions.get(event.subscribe_id)
        if intake is None:
            return False
        machine = self._incoming.machine
        assert isinstance(machine, GroupReceiver)
        self._spell_codes()
        buffer = GroupBuffer(self._stream, header_bytes=machine.header_bytes)
        if not intake.begin(GroupReader(event.sequence, event.start_frame, buffer), self):
            return False
        self._group = machine
        self._buffer = buffer
        self._intake = intake
        return True

    def reset_received(self, code: int) -> None:
        try:
            events = self._incoming.receive_reset(code)
        except RemoteProtocolError as error:
            self._broken(error)
            return
        self._over()
        for event in events:
            if isinstance(event, GroupReset):
                self._end(StreamReset(event.code), reset=True)

    def connection_lost(self, error: MoqtError) -> None:
        self._over()
        self._end(error, reset=False)

    @property
    def over(self) -> bool:
        """True when nothing more will come, also because this side refused it."""
        return self._stream.receive_ended

    def refuse(self, code: int) -> None:
        """Refuses the rest of the stream."""
        self._over()
        self._spell_codes()
        self._stream.stop(code)
        self._end(trio.ClosedResourceError("the subscription was closed"), reset=False)

    def _broken(self, error: RemoteProtocolError) -> None:
        self._over()
        if error.scope == "session":
            self._context.violated(error)
        else:
            self._spell_codes()
            # The frames that came whole can be read. They keep their credit until then: else a peer could fill memory
            # with groups that it breaks.
            self._stream.stop(error.code, keep_unread=True)
        self._end(StreamReset.after(error), reset=True)

    def _spell_codes(self) -> None:
        """Has the stream's codes spelled for its kind, from when that is known or the stream is given up."""
        if not self._spelled:
            self._spelled = True
            self._context.map_codes(self._stream, "group" if self._incoming.kind is StreamKind.GROUP else "stream")

    def _over(self) -> None:
        self._incoming.release()
        self._context.untyped.discard(self)

    def _end(self, error: Exception, *, reset: bool) -> None:
        if self._intake is not None and self._buffer is not None:
            self._buffer.fail(error)
            self._intake.end(self, self._buffer, reset=reset)


def deliver_datagram(context: SessionContext, data: bytes) -> None:
    """Hands a datagram to the subscription that it belongs to; unknown ones are dropped and counted."""
    event = context.core.receive_datagram(data)
    if event is None:
        return
    intake = context.subscriptions.get(event.subscribe_id)
    if intake is None or len(intake) >= context.limits.max_datagrams:
        return
    buffer = GroupBuffer()
    event.frame.wire_size = 0
    if intake.begin(GroupReader(event.sequence, 0, buffer, datagram=True)):
        buffer.deliver([event.frame], 0)
        buffer.finish()
        intake.count([event.frame])
