"""The objects of a subgroup, which is the hot path of a stream.

    object { Id Delta (i), [Properties Length (i), Properties (..)], Payload Length (i), [Status (i)], [Payload (..)] }

The first delta is the first id; a later one is one less than the difference to the id before. A block of properties is
there when the header says so, a status when the payload has no bytes.

Spec: draft-ietf-moq-transport-18, section 10.4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...codes import SessionCode, StreamCode
from ...errors import LimitExceeded, LocalProtocolError, Malformed
from ...frame import TIMESTAMP_PROPERTY, Frame
from ..dialect import ALL_FRAMES, FrameDecoder
from .objects import MalformedTrack, Status, check_status, gaps_of, malformed_track, read_status, timestamp_of
from .properties import MAX_VALUE, Pairs, read_block, too_many_properties, write_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...limits import Limits
    from .profile import Profile

_MAX_ID: Final = (1 << 62) - 1
_NONE: Final[tuple[Pairs, int | None]] = ((), None)
_KEPT_BLOCK: Final = 10
"""The longest block of properties that a decoder keeps, in bytes: a timestamp."""


class SubgroupEncoder:
    """Writes the objects of one subgroup's stream.

    Args:
        profile: The draft.
        properties: True when the header says that each object has properties.
        first: The id of the first object, if its frame has none.
    """

    __slots__ = ("_first", "_next", "_profile", "_properties", "_stamp_block", "_stamped")

    def __init__(self, profile: Profile, *, properties: bool, first: int = 0) -> None:
        self._profile = profile
        self._properties = properties
        # The id of an object that has none, and that from which the next delta counts.
        self._first = first
        self._next = 0
        # The last timestamp and its block: frames that are written together have the same.
        self._stamped: int | None = None
        self._stamp_block = b""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the bytes of some objects, in order. A frame without an index has the one after the last.

        Raises:
            LocalProtocolError: An index is not above the one before, or there are properties without a place; the
                state is unchanged.
        """
        encode = self._profile.encode
        parts: list[bytes] = []
        following, first = self._next, self._first
        for frame in frames:
            index = max(following, first) if frame.object_id is None else frame.object_id
            if not following <= index <= _MAX_ID:
                raise LocalProtocolError(f"object {index} where {following} or a later one is due")
            parts.append(encode(index - following))
            following = index + 1
            if self._properties:
                parts.append(self._block(frame.properties) if frame.properties else self._stamp(frame.timestamp))
            elif frame.properties:
                raise LocalProtocolError("an object with properties on a stream without them")
            size = len(frame)
            parts.append(encode(size))
            parts.append(frame if size else b"\0")
        self._next = following
        return b"".join(parts)

    def encode_status(self, index: int, status: Status) -> bytes:
        """Return the bytes of an object that has a status and no payload."""
        if index < self._next:
            raise LocalProtocolError(f"object {index} where {self._next} or a later one is due")
        encode = self._profile.encode
        block = b"\0" if self._properties else b""
        data = encode(index - self._next) + block + b"\0" + encode(check_status(status, self._profile))
        self._next = index + 1
        return data

    def _stamp(self, timestamp: int | None) -> bytes:
        """Return the block of an object that has a timestamp and nothing else, or not even that."""
        if timestamp is None:
            return b"\0"
        if timestamp != self._stamped:
            value = self._profile.encode(timestamp)
            # Both numbers are of one byte, which is the same in every draft.
            self._stamp_block = bytes((1 + len(value), TIMESTAMP_PROPERTY)) + value
            self._stamped = timestamp
        return self._stamp_block

    def _block(self, properties: Pairs) -> bytes:
        writer = self._profile.writer()
        write_pairs(writer, properties, self._profile)
        return self._profile.encode(len(writer)) + writer


class SubgroupDecoder(FrameDecoder):
    """Reads the objects of one subgroup's stream, cut anywhere.

    A payload that arrives in pieces is collected in a buffer that grows with the bytes received. After an exception it
    is not usable.

    Args:
        profile: The draft.
        limits: For `max_frame` and `max_parameters`.
        properties: True when the header says that each object has properties.

    Attributes:
        group_gap: How many groups before this one do not exist, as an object of it says; 0 before.
        end: The status that ended the group or the track, and the id of the first object that does not exist; None
            before. An object that says of itself alone that it does not exist (14, 15) is left out.
    """

    __slots__ = (
        "_block",
        "_block_said",
        "_body",
        "_body_size",
        "_head",
        "_head_size",
        "_index",
        "_last",
        "_limits",
        "_next",
        "_pairs",
        "_profile",
        "_properties",
        "_stamp",
        "end",
        "group_gap",
    )

    def __init__(self, profile: Profile, limits: Limits, *, properties: bool) -> None:
        self._profile = profile
        self._limits = limits
        self._properties = properties
        self._next = 0
        self._head = b""
        self._body: bytearray | None = None
        self._body_size = 0
        self._head_size = 0
        self._index = 0
        self._pairs: Pairs = ()
        self._stamp: int | None = None
        # The last block of properties, and what it says.
        self._block = b""
        self._block_said = _NONE
        self.end: tuple[Status, int] | None = None
        self._last = -1
        self.group_gap = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pending_bytes} bytes pending>"

    @property
    def pending_bytes(self) -> int:
        if self._body is not None:
            return self._head_size + len(self._body)
        return len(self._head)

    def feed_untrusted(
        self, data: bytes, frames: list[Frame], sizes: list[int], start: int = 0, most: int = ALL_FRAMES
    ) -> int:
        """Read bytes, and append the objects that they complete; see `FrameDecoder`.

        Raises:
            Malformed: The objects contradict each other (scope `"stream"`), or do not decode (scope `"session"`).
            LimitExceeded: An object announces more than `max_frame` bytes; raised as soon as its length is there.
        """
        offset = start
        held = 0
        body = self._body
        if body is not None:
            offset += self._body_size - len(body)
            body += data[start:offset]
            if len(body) < self._body_size:
                return len(data)
            frames.append(_make(body, self._stamp, self._index, self._pairs))
            sizes.append(self._head_size + self._body_size)
            self._body = None
            most -= 1
        elif self._head:
            held = len(self._head) - start
            data = self._head + data[start:]
            self._head = b""
            offset = 0
        if offset < len(data):
            offset = self._read_objects(data, offset, frames, sizes, most)
        return offset - held

    def _read_objects(self, data: bytes, offset: int, frames: list[Frame], sizes: list[int], most: int) -> int:
        end = len(data)
        decode, max_frame, properties = self._profile.decode, self._limits.max_frame, self._properties
        one_byte, new = self._profile.one_byte, bytes.__new__
        start = offset
        while start < end:
            if most <= 0:
                return start
            # Numbers of one byte are read in line: they are nearly all of them.
            offset = start
            index = data[offset]
            if index < one_byte:
                offset += 1
            else:
                found = decode(data, offset)
                if found is None:
                    break
                index, offset = found
            index += self._next
            pairs, stamp = _NONE
            if properties:
                if offset < end and (length := data[offset]) < one_byte:
                    block = offset + 1
                elif (found := decode(data, offset)) is None:
                    break
                else:
                    length, block = found
                offset = block + length
                if length > MAX_VALUE:
                    raise too_many_properties(length)
                if offset > end:
                    break
                if length:
                    # Frames that were written together have the same timestamp, and often nothing else.
                    said = data[block:offset]
                    pairs, stamp = self._block_said if said == self._block else self._read_block(said)
            if offset < end and (size := data[offset]) < one_byte:
                offset += 1
            elif (found := decode(data, offset)) is None:
                break
            else:
                size, offset = found
            if size > max_frame:
                raise LimitExceeded("max_frame", size, code=StreamCode.FRAME_TOO_LARGE, scope="stream")
            if not size:
                found = decode(data, offset)
                if found is None:
                    break
                status, offset = found
                if status:
                    self._on_status(read_status(status, self._profile, "an object"), index, pairs)
                    start = offset
                    continue
            if index > _MAX_ID or self.end is not None:
                raise self._out_of_place(index)
            if pairs and (stamp is None or len(pairs) > 1):
                self._note_gaps(index, pairs)
            stop = offset + size
            if stop > end:
                self._body = bytearray(data[offset:])
                self._body_size = size
                self._head_size = offset - start
                self._stamp, self._index, self._pairs = stamp, index, pairs
                self._next = index + 1
                return end
            # As `_make`; a call costs as much as the rest of a small object.
            frame = new(Frame, data[offset:stop])
            frame.timestamp = stamp
            frame.object_id = index
            if pairs:
                frame.properties = pairs
            frames.append(frame)
            sizes.append(stop - start)
            self._next = index + 1
            most -= 1
            start = stop
        self._head = data[start:]
        return end

    def _read_block(self, data: bytes) -> tuple[Pairs, int | None]:
        pairs = read_block(data, self._profile, self._limits)
        said = pairs, timestamp_of(pairs, self._profile)
        # A long block is not kept: a peer may leave many streams open.
        if len(data) <= _KEPT_BLOCK:
            self._block, self._block_said = data, said
        return said

    def _out_of_place(self, index: int) -> MalformedTrack:
        if self.end is not None:
            return malformed_track(f"object {index} after the end of the group")
        return malformed_track(f"an object id of {index}")

    def _note_gaps(self, index: int, pairs: Pairs) -> None:
        """Record what an object says about groups and objects before it that do not exist."""
        group, objects = gaps_of(pairs)
        if objects > index - self._next:
            raise malformed_track(f"object {index} says that the {objects} before it do not exist")
        if group:
            if self.group_gap not in (0, group):
                raise malformed_track(f"objects of one group say that {self.group_gap} and {group} groups do not exist")
            self.group_gap = group

    def _on_status(self, status: Status, index: int, pairs: Pairs) -> None:
        if index > _MAX_ID or self.end is not None:
            raise self._out_of_place(index)
        if pairs and self._profile.first_object:
            raise Malformed("properties beside a status", code=SessionCode.PROTOCOL_VIOLATION)
        if status in (Status.END_OF_GROUP, Status.END_OF_TRACK):
            self._last = self._next - 1
            self.end = status, index
        self._next = index + 1

    @property
    def last_object(self) -> int:
        """The id of the last object that exists; -1 before the first."""
        return self._next - 1 if self.end is None else self._last


def _make(payload: bytes | bytearray, stamp: int | None, index: int, pairs: Pairs) -> Frame:
    frame = Frame(payload, stamp)
    frame.object_id = index
    if pairs:
        frame.properties = pairs
    return frame


def peek_object(data: bytes | bytearray, offset: int, profile: Profile, *, properties: bool) -> tuple[int, int] | None:
    """Return the id and the status of the first object of a stream; None until they are there.

    An object with properties, or with a payload, has the status 0.
    """
    if offset < len(data) and data[offset] < profile.one_byte:
        index = data[offset]
        offset += 1
    elif (found := profile.decode(data, offset)) is None:
        return None
    else:
        index, offset = found
    for _ in range(2 if properties else 1):
        # The length of the properties, then that of the payload.
        if offset >= len(data):
            return None
        if data[offset]:
            return index, 0
        offset += 1
    found = profile.decode(data, offset)
    return None if found is None else (index, found[0])
