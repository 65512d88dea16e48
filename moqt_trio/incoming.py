"""Group streams and datagrams on their way in, until they reach their subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .codes import StreamCode
from .errors import MoqtError, RemoteProtocolError
from .group_reader import GroupReader
from .session.events import FramesReceived, GroupFinished, GroupReset, GroupStarted, SetupReceived
from .session.group import GroupReceiver
from .transport.abc import ReceiveStream, StreamSink
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from .driver import GroupTaker, SessionDriver
    from .wire.messages import Frame as WireFrame


class IncomingGroup(StreamSink):
    """A uni stream that the peer opened: a group of one of our subscriptions, or its SETUP."""

    keeps_after_reset = True
    __slots__ = ("_driver", "_group", "_incoming", "_reader", "_stream", "_subscription")

    def __init__(self, driver: SessionDriver, stream: ReceiveStream) -> None:
        self._driver = driver
        self._stream = stream
        self._incoming = driver.core.accept_uni()
        self._group: GroupReceiver | None = None
        self._reader: GroupReader | None = None
        self._subscription: GroupTaker | None = None

    def data_received(self, data: bytes, fin: bool) -> None:
        group = self._group
        before = 0 if group is None else group.pending_bytes
        try:
            events = self._incoming.receive_data(data, fin) if group is None else group.receive_data(data, fin)
        except RemoteProtocolError as error:
            self._broken(error, len(data))
            return
        frames: list[WireFrame] = []
        begun = finished = False
        for event in events:
            if isinstance(event, FramesReceived):
                frames = event.frames
            elif isinstance(event, GroupStarted):
                if not self._begin(event):
                    self.refuse(StreamCode.CANCELLED)
                    return
                begun = True
            elif isinstance(event, GroupFinished):
                finished = True
            elif isinstance(event, SetupReceived):
                self._driver.setup_received.set()
        if group is None and self._incoming.kind is not None:
            self._driver.untyped.discard(self)
        reader, group = self._reader, self._group
        if reader is None or group is None:
            # Only the stream's type and header so far, or a SETUP: small, and used at once.
            self._stream.consumed(len(data))
            return
        pending = group.pending_bytes
        owed = pending - before
        if begun:
            owed += group.header_bytes
        for frame in frames:
            owed += frame.wire_size
        if len(data) != owed:
            self._stream.consumed(len(data) - owed)
        if frames:
            assert self._subscription is not None
            self._subscription.count(frames)
        reader.deliver(frames, pending)
        if finished:
            self._incoming.release()
            reader.deliver_finish()
            assert self._subscription is not None
            self._subscription.group_complete(self, reader)

    def _begin(self, event: GroupStarted) -> bool:
        subscription = self._driver.subscriptions.get(event.subscribe_id)
        if subscription is None:
            return False
        machine = self._incoming.machine
        assert isinstance(machine, GroupReceiver)
        self._driver.spell_codes(self._stream, "group")
        reader = GroupReader(event.sequence, event.start_frame, self._stream, header_bytes=machine.header_bytes)
        if not subscription.add_group(reader):
            return False
        self._group = machine
        self._reader = reader
        self._subscription = subscription
        subscription.group_begun(self)
        return True

    def reset_received(self, code: int) -> None:
        try:
            events = self._incoming.receive_reset(code)
        except RemoteProtocolError as error:
            self._broken(error, 0)
            return
        self._over()
        for event in events:
            if isinstance(event, GroupReset):
                self._end(StreamReset(event.code), reset=True)

    def connection_lost(self, error: MoqtError) -> None:
        self._over()
        self._end(error, reset=False)

    def refuse(self, code: int) -> None:
        """Refuses the rest of the stream."""
        self._over()
        self._stream.stop(code)
        self._end(trio.ClosedResourceError("the subscription was closed"), reset=False)

    def _broken(self, error: RemoteProtocolError, count: int) -> None:
        self._over()
        self._stream.consumed(count)
        if error.scope == "session":
            self._driver.violated(error)
        else:
            self._stream.stop(error.code)
        self._end(StreamReset(error.code, by_peer=False), reset=True)

    def _over(self) -> None:
        self._incoming.release()
        self._driver.untyped.discard(self)

    def _end(self, error: Exception, *, reset: bool) -> None:
        if self._reader is not None:
            self._reader.deliver_error(error)
            if self._subscription is not None:
                self._subscription.group_over(self, self._reader, reset=reset)


def deliver_datagram(driver: SessionDriver, data: bytes) -> None:
    """Hands a datagram to the subscription that it belongs to; unknown ones are dropped and counted."""
    event = driver.core.receive_datagram(data)
    if event is None:
        return
    subscription = driver.subscriptions.get(event.subscribe_id)
    if subscription is None:
        return
    if subscription.unread_groups >= driver.limits.max_datagrams:
        return
    reader = GroupReader(event.sequence, 0, None, datagram=True)
    event.frame.wire_size = 0
    if subscription.add_group(reader):
        reader.deliver([event.frame], 0)
        reader.deliver_finish()
        subscription.count([event.frame])
