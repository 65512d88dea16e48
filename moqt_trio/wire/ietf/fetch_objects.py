"""The objects of a reply to a fetch: any groups and subgroups on one stream, in the order of their locations.

| draft | object |
|---|---|
| 14 | `i group, i subgroup, i object, u8 priority, i size, pairs, i length, [i status], payload` |
| from 15 on | `flags, [i group], [i subgroup], [i object], [u8 priority], [i size, pairs], i length, payload` |

The flags say which fields are there; what is left out is as in the object before, or follows from it. In 15 a payload
of no bytes has a status behind its length. From 16 on flags of 0x80 and more are marks, which say that a range of
objects does not exist, is unknown, or timed out.

Spec: draft-ietf-moq-transport-18, section 10.4.4.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from ...codes import SessionCode, StreamCode
from ...errors import LimitExceeded, LocalProtocolError, Malformed
from ..dialect import ALL_FRAMES
from .names import Location
from .objects import Status, make_frame, malformed_track, properties_of, read_status
from .properties import MAX_VALUE, read_block, too_many_properties, write_properties

if TYPE_CHECKING:
    from ...frame import Frame
    from ...limits import Limits
    from ..buffer import Writer
    from .profile import Profile
    from .properties import Pairs

_VIOLATION: Final[int] = SessionCode.PROTOCOL_VIOLATION
_SUBGROUP: Final = 0x03
_SAME_SUBGROUP, _NEXT_SUBGROUP, _SUBGROUP_FIELD = 1, 2, 3
_OBJECT: Final = 0x04
_GROUP: Final = 0x08
_PRIORITY: Final = 0x10
_PROPERTIES: Final = 0x20
_DATAGRAM: Final = 0x40
_FIRST_MARK: Final = 0x80
_MAX_ID: Final = (1 << 62) - 1


class Missing(enum.IntEnum):
    """Why a range of objects is not in the reply."""

    NOT_EXISTENT = 0x8C
    UNKNOWN = 0x10C
    TIMED_OUT = 0x20C


@attrs.frozen
class FetchedObject:
    """One object of a reply.

    Attributes:
        group: Its group.
        subgroup: Its subgroup; None for one that was a datagram.
        priority: 0 first … 255.
        frame: The object, with its id.
        status: What it says instead of a payload (14, 15).
        size: The bytes that it took on the stream.
    """

    group: int
    subgroup: int | None
    priority: int
    frame: Frame = attrs.field(eq=lambda frame: (bytes(frame), frame.object_id, frame.properties))
    status: Status = Status.NORMAL
    size: int = attrs.field(default=0, eq=False)

    @property
    def location(self) -> Location:
        """Where the object is."""
        return Location(self.group, self.frame.object_id or 0)


@attrs.frozen
class MissingRange:
    """Everything after the object before, up to and with a location, is not in the reply.

    Attributes:
        end: The location.
        reason: Why.
        size: The bytes that it took on the stream.
    """

    end: Location
    reason: Missing
    size: int = attrs.field(default=0, eq=False)


@attrs.frozen
class _Before:
    """The values that an object may leave out."""

    group: int
    object: int
    subgroup: int | None
    priority: int | None


class _NotThere(Exception):
    """An object is not complete yet."""


class FetchDecoder:
    """Reads the objects of one reply, cut anywhere.

    Bytes of an object that is not complete are kept, so the caller bounds them by `max_frame` and the window. After an
    exception it is not usable.

    Args:
        profile: The draft.
        limits: For `max_frame` and `max_parameters`.
        descending: True for a reply whose groups come newest first.
    """

    def __init__(self, profile: Profile, limits: Limits, *, descending: bool = False) -> None:
        self._profile = profile
        self._limits = limits
        self._descending = descending
        self._data = bytearray()
        self._wanted = 0
        self._before: _Before | None = None
        self._last: tuple[int, int] | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes that were fed and belong to an object that is not complete."""
        return len(self._data)

    def feed_untrusted(self, data: bytes) -> list[FetchedObject | MissingRange]:
        """Read bytes, and return what they complete.

        Raises:
            Malformed: The bytes are no objects (scope `"session"`), or contradict each other (scope `"stream"`).
            LimitExceeded: An object announces more than `max_frame` bytes; raised as soon as its length is there.
        """
        found: list[FetchedObject | MissingRange] = []
        self.read_untrusted(data, found)
        return found

    def read_untrusted(self, data: bytes, found: list[FetchedObject | MissingRange], most: int = ALL_FRAMES) -> int:
        """Read bytes, and append what they complete; on an exception `found` has what is before the mistake.

        Args:
            data: The next bytes of the stream.
            found: The list to append to.
            most: What is appended at most, above 0.

        Returns:
            How many bytes at the end of `data` were not looked at, because of `most`.

        Raises: as `feed_untrusted`.
        """
        self._data += data
        while self._data and len(self._data) >= self._wanted:
            if not most:
                left = len(self._data)
                self._data.clear()
                return left
            self._wanted = 0
            fields = _Fields(self._data, self._profile)
            try:
                item = self._read(fields)
            except _NotThere:
                self._wanted = max(fields.wanted, len(self._data) + 1)
                break
            found.append(attrs.evolve(item, size=fields.offset))
            del self._data[: fields.offset]
            most -= 1
        return 0

    def _read(self, fields: _Fields) -> FetchedObject | MissingRange:
        profile = self._profile
        if profile.fetch_objects == "full":
            where = fields.number(), fields.number(), fields.number()
            return self._finish(fields, _Before(where[0], where[2], where[1], fields.byte()), has_properties=True)
        flags = fields.byte() if profile.fetch_objects == "status" else fields.number()
        if flags >= (_DATAGRAM if profile.fetch_objects == "status" else _FIRST_MARK):
            return self._read_mark(fields, flags)
        before = self._before
        first = before is None
        if first and not (flags & _GROUP and flags & _OBJECT):
            raise Malformed("a fetch's first object without a location", code=_VIOLATION)
        datagram = bool(flags & _DATAGRAM)
        group_field = fields.number() if flags & _GROUP else None
        form = flags & _SUBGROUP
        subgroup: int | None = fields.number() if form == _SUBGROUP_FIELD and not datagram else None
        object_field = fields.number() if flags & _OBJECT else None
        group, number = self._place(group_field, object_field)
        if datagram:
            subgroup = None
        elif form in (_SAME_SUBGROUP, _NEXT_SUBGROUP):
            if before is None or before.subgroup is None:
                raise Malformed("a fetch's object has the subgroup of one before, which has none", code=_VIOLATION)
            subgroup = before.subgroup + (form == _NEXT_SUBGROUP)
        elif form == 0:
            subgroup = 0
        priority = fields.byte() if flags & _PRIORITY else None if before is None else before.priority
        if priority is None:
            raise Malformed("a fetch's first object without a priority", code=_VIOLATION)
        kept = before.subgroup if datagram and before is not None else subgroup
        values = _Before(group, number, kept, priority)
        return self._finish(fields, values, subgroup, datagram=datagram, has_properties=bool(flags & _PROPERTIES))

    def _place(self, group_field: int | None, object_field: int | None) -> tuple[int, int]:
        """Return the group and the object that some fields stand for."""
        before = self._before
        differences = self._profile.fetch_objects == "delta"
        if before is None:
            assert group_field is not None
            assert object_field is not None
            return group_field, object_field
        group = before.group
        if group_field is not None:
            group = group_field
            if differences:
                step = group_field + 1
                group = before.group - step if self._descending else before.group + step
        if object_field is None:
            return group, before.object + 1
        return group, object_field if group_field is not None or not differences else before.object + object_field

    def _read_mark(self, fields: _Fields, flags: int) -> MissingRange:
        known = {Missing.NOT_EXISTENT, Missing.UNKNOWN} | (
            {Missing.TIMED_OUT} if self._profile.timed_out_ranges else set()
        )
        if self._profile.fetch_objects == "status" or flags not in known:
            raise Malformed(f"a fetch's object with the flags {flags:#x}", code=_VIOLATION)
        end = Location(fields.number(), fields.number())
        before = self._before
        self._before = _Before(
            end.group,
            end.object,
            None if before is None else before.subgroup,
            None if before is None else before.priority,
        )
        self._last = self._checked(end.group, end.object)
        return MissingRange(end, Missing(flags))

    def _finish(
        self,
        fields: _Fields,
        values: _Before,
        subgroup: int | None = None,
        *,
        datagram: bool = False,
        has_properties: bool,
    ) -> FetchedObject:
        """Read what every draft has at the end: properties, length, status, payload."""
        profile = self._profile
        pairs: Pairs = ()
        if has_properties:
            size = fields.number()
            if size > MAX_VALUE:
                raise too_many_properties(size)
            pairs = read_block(fields.take(size), profile, self._limits)
        size = fields.number()
        if size > self._limits.max_frame:
            raise LimitExceeded("max_frame", size, code=StreamCode.FRAME_TOO_LARGE, scope="stream")
        status = Status.NORMAL
        if not size and profile.fetch_objects in ("full", "status"):
            status = read_status(fields.number(), profile, "an object")
        payload = fields.take(size)
        self._last = self._checked(values.group, values.object)
        self._before = values
        if profile.fetch_objects == "full":
            subgroup = values.subgroup
        assert values.priority is not None
        return FetchedObject(
            values.group,
            None if datagram else subgroup,
            values.priority,
            make_frame(payload, values.object, pairs, profile),
            status,
        )

    def _checked(self, group: int, number: int) -> tuple[int, int]:
        """Return a location that may follow the last one."""
        if not (0 <= group <= _MAX_ID and 0 <= number <= _MAX_ID):
            raise malformed_track(f"a fetch's object at {group}/{number}")
        if self._last is not None:
            last_group, last_number = self._last
            later = group < last_group if self._descending else group > last_group
            if not later and (group != last_group or number <= last_number):
                raise malformed_track(f"a fetch's object at {group}/{number}, after {last_group}/{last_number}")
        return group, number


class _Fields:
    """Reads the fields of one object from bytes of which some may not have arrived."""

    def __init__(self, data: bytearray, profile: Profile) -> None:
        self._data = data
        self._decode = profile.decode
        self.offset = 0
        self.wanted = 0

    def number(self) -> int:
        found = self._decode(self._data, self.offset)
        if found is None:
            raise _NotThere
        value, self.offset = found
        return value

    def byte(self) -> int:
        if self.offset >= len(self._data):
            raise _NotThere
        self.offset += 1
        return self._data[self.offset - 1]

    def take(self, size: int) -> bytes:
        end = self.offset + size
        if end > len(self._data):
            self.wanted = end
            raise _NotThere
        found = bytes(self._data[self.offset : end])
        self.offset = end
        return found


class FetchEncoder:
    """Writes the objects of one reply, each field only where it is needed.

    Args:
        profile: The draft.
        descending: True for a reply whose groups come newest first.
    """

    def __init__(self, profile: Profile, *, descending: bool = False) -> None:
        self._profile = profile
        self._descending = descending
        self._before: _Before | None = None

    def encode(self, item: FetchedObject, flags: int | None = None, *, index: int | None = None) -> bytes:
        """Return an object's bytes.

        Args:
            item: The object.
            flags: Which fields to write; None for those that are needed.
            index: The object's id, if its frame has none.

        Raises:
            LocalProtocolError: It has no id, or the draft cannot carry its status.
        """
        profile, frame = self._profile, item.frame
        number = index if frame.object_id is None else frame.object_id
        if number is None:
            raise LocalProtocolError("an object of a fetch has an id")
        if item.status and profile.fetch_objects not in ("full", "status"):
            raise LocalProtocolError(f"draft {profile.draft} has no status in a fetch")
        writer = profile.writer()
        properties = properties_of(frame)
        if profile.fetch_objects == "full":
            for value in (item.group, number if item.subgroup is None else item.subgroup, number):
                writer.varint(value)
            writer.u8(item.priority)
            write_properties(writer, properties, profile)
        else:
            flags = self._flags(item, number, properties) if flags is None else flags
            (writer.u8 if profile.fetch_objects == "status" else writer.varint)(flags)
            self._write_fields(writer, item, number, flags)
            if flags & _PROPERTIES:
                write_properties(writer, properties, profile)
        writer.varint(len(frame))
        if not frame and profile.fetch_objects in ("full", "status"):
            writer.varint(item.status)
        writer.raw(frame)
        before = self._before
        kept = before.subgroup if item.subgroup is None and before is not None else item.subgroup
        self._before = _Before(item.group, number, kept, item.priority)
        return writer.getvalue()

    def encode_missing(self, missing: MissingRange) -> bytes:
        """Return the bytes of a mark (from 16 on)."""
        if self._profile.fetch_objects in ("full", "status"):
            raise LocalProtocolError(f"draft {self._profile.draft} cannot say what a fetch leaves out")
        writer = self._profile.writer()
        writer.varint(missing.reason)
        writer.varint(missing.end.group)
        writer.varint(missing.end.object)
        before = self._before
        self._before = _Before(
            *missing.end, None if before is None else before.subgroup, None if before is None else before.priority
        )
        return writer.getvalue()

    def _flags(self, item: FetchedObject, number: int, properties: Pairs) -> int:
        before = self._before
        flags = _PROPERTIES if properties else 0
        if before is None or item.group != before.group:
            flags |= _GROUP | _OBJECT
        elif number != before.object + 1:
            flags |= _OBJECT
        if before is None or item.priority != before.priority:
            flags |= _PRIORITY
        if item.subgroup is None:
            if self._profile.fetch_objects == "status":
                raise LocalProtocolError("draft 15 cannot say that a fetch's object was a datagram")
            return flags | _DATAGRAM
        if item.subgroup == 0:
            return flags
        if before is not None and before.subgroup is not None and 0 <= item.subgroup - before.subgroup <= 1:
            return flags | (_SAME_SUBGROUP + item.subgroup - before.subgroup)
        return flags | _SUBGROUP_FIELD

    def _write_fields(self, writer: Writer, item: FetchedObject, number: int, flags: int) -> None:
        before = self._before
        differences = self._profile.fetch_objects == "delta" and before is not None
        if flags & _GROUP:
            group = item.group
            if differences:
                assert before is not None
                group = (before.group - item.group if self._descending else item.group - before.group) - 1
                if group < 0:
                    raise LocalProtocolError(f"group {item.group} of a fetch after group {before.group}")
            writer.varint(group)
        if flags & _SUBGROUP == _SUBGROUP_FIELD and not flags & _DATAGRAM:
            writer.varint(item.subgroup or 0)
        if flags & _OBJECT:
            if differences and not flags & _GROUP:
                assert before is not None
                if number < before.object:
                    raise LocalProtocolError(f"object {number} of a fetch after object {before.object}")
                number -= before.object
            writer.varint(number)
        if flags & _PRIORITY:
            writer.u8(item.priority)
