"""A subgroup's stream: a header, then objects to the end. It is a group here, and this is the hot path.

The header names the track by its alias. When no message has named that alias yet, the stream is parked: it keeps its
bytes, and their credit, until `SUBSCRIBE_OK` has come on its own stream.

Spec: draft-ietf-moq-transport-18, section 10.4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode
from ...errors import LocalProtocolError, Malformed, RemoteProtocolError
from ...wire.ietf.objects import Status, SubgroupHeader, read_subgroup_header, subgroup_flags, write_subgroup_header
from ...wire.ietf.subgroups import SubgroupDecoder, SubgroupEncoder, peek_object
from ..events import Event, FramesReceived, GroupFinished, GroupReset, GroupStarted
from ..machine import StreamMachine
from .events import TrackEnded

if TYPE_CHECKING:
    from ...frame import Frame
    from ...wire.dialect import FrameDecoder
    from ..group import Subgroup
    from .state import IetfState

_MAX_NUMBER = (1 << 62) - 1
_MOST_URGENT = 255


class SubgroupSender(StreamMachine):
    """We deliver a group to the peer. The caller finishes the stream after the last frame, or resets it.

    Attributes:
        subscribe_id: The peer's subscription.
        sequence: The group's number.
        frames: Called with some frames, in order; returns their bytes.
    """

    def __init__(
        self, session: IetfState, subscribe_id: int, sequence: int, start_frame: int, subgroup: Subgroup
    ) -> None:
        if subscribe_id not in session.peers:
            raise LocalProtocolError(f"the peer has no subscription {subscribe_id}")
        profile, priority = session.profile, _MOST_URGENT - subgroup.priority
        # The form that every peer reads: the priority as a field, though it may be the track's.
        header = SubgroupHeader(
            subgroup_flags(
                profile,
                properties=True,
                ends_group=subgroup.ends_group,
                is_first=subgroup.is_first,
                subgroup=subgroup.subgroup,
                priority=priority,
            ),
            subscribe_id,
            sequence,
            subgroup.subgroup,
            priority,
        )
        self.opening = write_subgroup_header(header, profile)
        self.subscribe_id = subscribe_id
        self.sequence = sequence
        self.frames = SubgroupEncoder(profile, properties=True, first=start_frame).encode
        session.streams_opened[subscribe_id] = session.streams_opened.get(subscribe_id, 0) + 1


class SubgroupReceiver(StreamMachine):
    """The peer delivers a group to us. Events and attributes as those of `protocol.group.GroupReceiver`.

    A stream whose first object says that the track ends before its group has the event `TrackEnded` instead.

    Attributes:
        parked: True while the alias is not known; see above.
        ends: What the objects said of the end of the group; None before the header. It stays after `release`.
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
        self.ends: SubgroupDecoder | None = None

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        self._fin = self._fin or fin
        if self.frames is None:
            data = self._read_header_untrusted(data, events)
            if self.frames is None:
                if self._fin and not self.parked and not self._closed:
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
            assert self.group is not None
            if self.ends is not None and self.ends.end is not None and self.ends.end[0] is Status.END_OF_TRACK:
                events.append(TrackEnded(self.group.subscribe_id, self.group.sequence + (self.ends.end[1] > 0)))

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
        # The first object's id says where the group starts, and its status whether there is one.
        first = peek_object(head, end, session.profile, properties=header.has_properties)
        if first is None and not self._fin:
            return b""
        subscribe_id = session.aliases.find(header.alias)
        if subscribe_id is None:
            session.aliases.park_untrusted(header.alias, self)
            self.parked, self._alias = True, header.alias
            return b""
        if subscribe_id not in session.issued:
            raise RemoteProtocolError("a group of a subscription that ended", code=StreamCode.CANCELLED, scope="stream")
        start, status = first or (0, Status.NORMAL)
        subgroup = start if header.subgroup is None else header.subgroup
        if header.group > _MAX_NUMBER or subgroup > _MAX_NUMBER:
            problem = f"subgroup {subgroup} of group {header.group}"
            raise Malformed(problem, code=StreamCode.MALFORMED_TRACK, scope="stream")
        self._head = b""
        session.streams_read[subscribe_id] = session.streams_read.get(subscribe_id, 0) + 1
        if status == Status.END_OF_TRACK and not start:
            # There is no such group.
            self._closed = True
            events.append(TrackEnded(subscribe_id, header.group))
            return b""
        self.header_bytes = end
        self.frames = self.ends = SubgroupDecoder(session.profile, session.limits, properties=header.has_properties)
        # Up to 17 the header does not say whether this is the subgroup's first object; an id of 0 is.
        whole = header.is_first or (first is not None and not start)
        priority = None if header.priority is None else _MOST_URGENT - header.priority
        self.group = GroupStarted(subscribe_id, header.group, start, whole, subgroup, priority, header.ends_group)
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
