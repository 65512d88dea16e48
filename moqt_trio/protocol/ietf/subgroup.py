"""A subgroup's stream: a header, then objects to the end. It is a group here, and this is the hot path.

The header names the track by its alias. When no message has named that alias yet, the stream is parked: it keeps its
bytes, and their credit, until `SUBSCRIBE_OK` has come on its own stream.

Spec: draft-ietf-moq-transport-18, section 10.4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode
from ...errors import LocalProtocolError, Malformed, RemoteProtocolError
from ...wire.ietf.objects import SubgroupHeader, read_subgroup_header, subgroup_flags, write_subgroup_header
from ...wire.ietf.subgroups import SubgroupDecoder, SubgroupEncoder
from ..events import Event, FramesReceived, GroupFinished, GroupReset, GroupStarted
from ..machine import StreamMachine

if TYPE_CHECKING:
    from ...frame import Frame
    from ...wire.dialect import FrameDecoder
    from .state import IetfState


class SubgroupSender(StreamMachine):
    """We deliver a group to the peer. The caller finishes the stream after the last frame, or resets it.

    Attributes:
        subscribe_id: The peer's subscription.
        sequence: The group's number.
        frames: Called with some frames, in order; returns their bytes.
    """

    def __init__(self, session: IetfState, subscribe_id: int, sequence: int, start_frame: int) -> None:
        if subscribe_id not in session.peers:
            raise LocalProtocolError(f"the peer has no subscription {subscribe_id}")
        profile = session.profile
        flags = subgroup_flags(
            profile, properties=True, ends_group=True, is_first=start_frame == 0, subgroup=0, priority=128
        )
        self.opening = write_subgroup_header(SubgroupHeader(flags, subscribe_id, sequence), profile)
        self.subscribe_id = subscribe_id
        self.sequence = sequence
        self.frames = SubgroupEncoder(profile, properties=True, first=start_frame).encode
        session.count_stream(subscribe_id)


class SubgroupReceiver(StreamMachine):
    """The peer delivers a group to us. Events and attributes as those of `protocol.group.GroupReceiver`.

    Attributes:
        parked: True while the alias is not known; see above.
    """

    def __init__(self, session: IetfState) -> None:
        self._session = session
        self._head = b""
        # What arrived while the stream is parked, but for the header.
        self._waiting: list[bytes] = []
        self._fin = False
        self._alias = -1
        self.group: GroupStarted | None = None
        self.header_bytes = 0
        self.rest = b""
        self.parked = False
        self.frames: FrameDecoder | None = None

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        self._fin = self._fin or fin
        if self.frames is None:
            data = self._read_header_untrusted(data, events)
            if self.frames is None:
                if self._fin and not self.parked:
                    self._closed = True
                    raise Malformed("FIN inside a header", code=StreamCode.MALFORMED_TRACK, scope="stream")
                return
            if self._session.frames_apart:
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
        if self._fin:
            self._closed = True
            if self.frames is None or self.frames.pending_bytes:
                raise Malformed("FIN inside a group", code=StreamCode.MALFORMED_TRACK, scope="stream")
            events.append(GroupFinished())

    def _read_header_untrusted(self, data: bytes, events: list[Event]) -> bytes:
        session = self._session
        if self.parked:
            self._waiting.append(data)
            if session.aliases.find(self._alias) is None:
                return b""
            data = b"".join(self._waiting)
            self._waiting.clear()
            session.aliases.unpark(self._alias, self)
            self.parked = False
        head = self._head = self._head + data
        found = read_subgroup_header(head, session.profile)
        if found is None:
            return b""
        header, end = found
        first = session.profile.decode(head, end)
        if first is None and not self._fin:
            # The first object's id says where the group starts.
            return b""
        subscribe_id = session.aliases.find(header.alias)
        if subscribe_id is None:
            session.aliases.park_untrusted(header.alias, self)
            self.parked, self._alias = True, header.alias
            return b""
        if subscribe_id not in session.issued:
            raise RemoteProtocolError("a group of a subscription that ended", code=StreamCode.CANCELLED, scope="stream")
        if header.group > _MAX_SEQUENCE:
            problem = f"a group of number {header.group}"
            raise Malformed(problem, code=StreamCode.MALFORMED_TRACK, scope="stream")
        self.header_bytes = end
        self.frames = SubgroupDecoder(session.profile, session.limits, properties=header.has_properties)
        self._head = b""
        whole = header.is_first or (first is not None and first[0] == 0)
        self.group = GroupStarted(subscribe_id, header.group, 0 if first is None else first[0], whole)
        events.append(self.group)
        return head[end:]

    def _on_reset(self, code: int) -> list[Event]:
        return [GroupReset(code)] if self.group is not None else []

    def release(self) -> None:
        self._closed = True
        self.frames = None
        self._head = b""
        self._waiting.clear()
        if self.parked:
            self._session.aliases.unpark(self._alias, self)


_MAX_SEQUENCE = (1 << 62) - 1
