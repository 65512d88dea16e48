"""The group stream: a header, then frames to the end. This is the hot path.

Spec: draft-lcurley-moq-lite-06, section 7 (GROUP and FRAME).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..codes import StreamCode
from ..errors import LocalProtocolError, Malformed
from ..wire.buffer import StreamBuffer
from ..wire.messages import Expect, Group, StreamKind
from .events import Event, FramesReceived, GroupFinished, GroupReset, GroupStarted
from .machine import StreamMachine

if TYPE_CHECKING:
    from ..frame import Frame
    from ..wire.dialect import FrameDecoder
    from .state import SessionState


@attrs.frozen
class Subgroup:
    """What the header of a group's stream says in the versions that have subgroups.

    Attributes:
        subgroup: The subgroup's id; 0 for the only one of its group.
        priority: 0 … 255, higher goes first.
        ends_group: True when the last frame on the stream is the last one of the group.
        is_first: True when the first frame on the stream is the first one of the subgroup.
    """

    subgroup: int = 0
    priority: int = 127
    ends_group: bool = True
    is_first: bool = True


class GroupSender(StreamMachine):
    """We deliver a group to the peer. The caller finishes the stream after the last frame, or resets it.

    Attributes:
        subscribe_id: The peer's subscription.
        sequence: The group's number.
        frames: Called with some frames, in order; returns their bytes. Raises `LocalProtocolError` when a frame can't
            be carried; none of them counts as sent.
    """

    def __init__(self, session: SessionState, subscribe_id: int, sequence: int, start_frame: int) -> None:
        if subscribe_id not in session.peers:
            raise LocalProtocolError(f"the peer has no subscription {subscribe_id}")
        dialect = session.dialect
        self.opening = dialect.stream_type(StreamKind.GROUP) + dialect.encode(
            Group(subscribe_id, sequence, start_frame)
        )
        self.subscribe_id = subscribe_id
        self.sequence = sequence
        self.frames = dialect.frame_encoder().encode


class GroupReceiver(StreamMachine):
    """The peer delivers a group to us.

    Events: `GroupStarted`, then one `FramesReceived` for each call that completes frames, then `GroupFinished` or
    `GroupReset`.

    A caller that reads the frames itself, a few at a time, gets the header's event only. It has to feed `rest` and what
    follows to `frames`, which must not have pending bytes at the end.

    Attributes:
        group: The header; None until it arrived.
        header_bytes: How many bytes of the stream the header took, the stream type included; no frame counts them.
        frames: Reads the frames after the header; None before it, and once the stream is over. After its exception,
            call `release`.
        rest: For such a caller, the bytes that came together with the end of the header.
    """

    def __init__(self, session: SessionState, header_bytes: int = 0) -> None:
        self.group: Group | None = None
        self.header_bytes = header_bytes
        self.rest = b""
        self._session = session
        # Bytes of a header that is not complete.
        self._head: StreamBuffer | None = None
        self.frames: FrameDecoder | None = None

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        if self.frames is None:
            data = self._read_header_untrusted(data, events)
            if self.frames is not None and self._session.frames_apart:
                self.rest = data
                return
        if data and self.frames is not None:
            frames: list[Frame] = []
            sizes: list[int] = []
            try:
                self.frames.feed_untrusted(data, frames, sizes)
            finally:
                if frames:
                    events.append(FramesReceived(frames, sizes))
        if fin:
            self._closed = True
            if self.frames is None or self.frames.pending_bytes:
                raise Malformed("FIN inside a group", code=StreamCode.MALFORMED_TRACK, scope="stream")
            events.append(GroupFinished())

    def _read_header_untrusted(self, data: bytes, events: list[Event]) -> bytes:
        """Read the header, once it is complete, and return the bytes that follow it."""
        head = self._head
        if head is None:
            head = self._head = StreamBuffer(data)
        else:
            head += data
        before = len(head)
        message = self._session.dialect.read_untrusted(Expect.GROUP, head, self._session.limits)
        if message is None:
            return b""
        assert isinstance(message, Group)
        self._session.issued.check_untrusted(message.subscribe_id)
        self.group = message
        self.header_bytes += before - len(head)
        self.frames = self._session.dialect.frame_decoder(self._session.limits)
        self._head = None
        events.append(GroupStarted(message.subscribe_id, message.sequence, message.start_frame))
        return bytes(head)

    def _on_reset(self, code: int) -> list[Event]:
        # Without a header no group is known, so there is no event.
        return [GroupReset(code)] if self.group is not None else []

    def release(self) -> None:
        self._closed = True
        self.frames = self._head = None
