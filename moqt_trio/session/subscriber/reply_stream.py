"""ReceivedReply: the stream with the objects of a reply; RangeReader: a fetch whose reply has a stream of its own.

Spec: draft-ietf-moq-transport-18, section 10.4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ...errors import RemoteProtocolError, StreamReset
from ...protocol.ietf.events import FetchAccepted
from ...tasks import defer_interrupts
from ...timeouts import Timeout
from ...transport.interface import StreamHandler
from .fetch import FetchReader
from .group import FrameSource, GroupBuffer
from .request import RequestControl, open_control

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...path import BroadcastPath
    from ...protocol.events import Event
    from ...protocol.ietf.fetch import FetchRequester, ReplyReceiver
    from ...transport.receive_stream import ReceiveStream
    from ...transport.stream import BidiStream
    from ...wire.ietf.fetched_frames import FetchedFrames
    from ..context import SessionContext


class ReceivedReply(StreamHandler, FrameSource):
    """The stream of a reply, from its header on: frames keep their credit until they are read.

    Args:
        context: The session's.
        stream: The stream.
        machine: Has read the header.
        buffer: Takes the frames.
        header_bytes: Bytes of the header whose credit was not returned.
        ended: Called when nothing more will arrive, with True when it is incomplete.
    """

    keeps_after_reset = True

    def __init__(
        self,
        context: SessionContext,
        stream: ReceiveStream,
        machine: ReplyReceiver,
        buffer: GroupBuffer,
        header_bytes: int,
        ended: Callable[[ReceivedReply, bool], None],
    ) -> None:
        assert machine.frames is not None
        self._context = context
        self._stream = stream
        self._buffer = buffer
        self._frames: FetchedFrames = machine.frames
        self._ended: Callable[[ReceivedReply, bool], None] | None = ended
        context.map_codes(stream, "group")
        buffer.attach(stream, header_bytes)
        buffer.read_from(self, machine.frames, context.unread_frames)

    @property
    def buffer(self) -> GroupBuffer:
        """The frames."""
        return self._buffer

    @property
    def over(self) -> bool:
        """True when no more will arrive, also because this side refused the rest."""
        return self._stream.receive_ended

    def refuse(self, code: int) -> None:
        """Refuse the rest."""
        self._stream.stop(code)
        self._buffer.fail(trio.ClosedResourceError("the subscription was closed"))
        self._end(incomplete=True)

    def data_received(self, data: bytes, fin: bool) -> None:
        self._buffer.feed(data, fin=fin)

    def finished(self) -> None:
        # What belongs to no frame: marks of what is missing, behind the last one.
        self._stream.consumed(self._frames.spare)
        self._end(incomplete=False)

    def closed(self) -> None:
        self._end(incomplete=True)

    def broken(self, error: RemoteProtocolError) -> None:
        if error.scope == "session":
            self._context.violated(error)
        else:
            # The complete frames can be read, and keep their credit until then.
            self._stream.stop(error.code, keep_unread=True)
        self._buffer.fail(StreamReset.after(error))
        self._end(incomplete=True)

    def reset_received(self, code: int) -> None:
        self._buffer.fail_by_reset(StreamReset(code), self._context.connection)
        self._end(incomplete=True)

    def connection_lost(self, error: MoqtError) -> None:
        self._buffer.fail(error)
        self._end(incomplete=True)

    def _end(self, *, incomplete: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self, incomplete)


@defer_interrupts
class RangeReader(FetchReader):
    """A fetch of frames of any groups of a track. Use it as `async with session.fetch_range(…) as frames`.

    Its frames come in the order of their groups, and in order within a group: `frame.group` is the sequence, and
    `frame.index` the index in the group. Reading it raises what reading a fetch of one group raises.
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
        super().__init__(context, path, track, machine, sequence, start_frame)
        self._request = machine
        self._reply: ReceivedReply | None = None

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """The ends of the ranges that the publisher no longer has or that never were, as far as it says so.

        Each is the group and the index of the last frame that is missing, and the range begins behind the frame that
        came before. The newest 256 are kept.
        """
        return tuple((item.end.group, item.end.object) for item in self._request.frames.missing)

    async def _open(self) -> None:
        context, machine = self._context, self._request

        def attach(stream: BidiStream) -> RequestControl:
            context.replies[machine.request_id] = self._begin
            self._frames.expect_within(Timeout(context.limits.reply_timeout), self._on_timeout)
            return RequestControl(context, stream, machine, self._on_event, self._on_failure)

        self._control = await open_control(context, self._codes, attach)

    def _begin(self, stream: ReceiveStream, machine: ReplyReceiver, header_bytes: int) -> ReceivedReply:
        """Called when the stream of the reply has begun."""
        self._frames.wait_on()
        self._reply = ReceivedReply(self._context, stream, machine, self._frames, header_bytes, self._reply_ended)
        return self._reply

    def _reply_ended(self, reply: ReceivedReply, incomplete: bool) -> None:
        self._reply = None
        if not incomplete:
            self._finish()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, FetchAccepted):
            # How long the objects may take is the caller's decision.
            self._frames.wait_on()
        else:
            super()._on_event(event)

    def _close(self) -> None:
        super()._close()
        self._request.release()
        self._context.replies.pop(self._request.request_id, None)
