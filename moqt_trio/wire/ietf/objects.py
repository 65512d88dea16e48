"""Objects: what the three forms share in which they travel, and the two short ones, headers and datagrams.

An object is a `Frame` here, with its `object_id` and its properties. Its timestamp is one of the properties.

| form | file |
|---|---|
| a subgroup: some of a group's objects on a stream of their own | `subgroups.py` |
| the reply to a fetch: objects of any group on one stream | `fetch_objects.py` |
| a datagram: one object | here |

Spec: draft-ietf-moq-transport-18, section 10.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from ...codes import SessionCode, StreamCode
from ...errors import LocalProtocolError, Malformed
from ...frame import TIMESTAMP_PROPERTY, Frame
from .properties import read_properties, write_properties

if TYPE_CHECKING:
    from ...limits import Limits
    from .profile import Profile
    from .properties import Pairs

OLD_TIMESTAMP: Final = 0x06
"""The same, from peers that follow an older draft of the low-overhead container; from 19 on it is a timeout."""
FETCH_STREAM: Final = 0x05
"""The type of a stream that replies to a fetch."""
PADDING_STREAM: Final = 0x132B3E28
PADDING_DATAGRAM: Final = 0x132B3E29

DEFAULT_PRIORITY: Final = 128


class Status(enum.IntEnum):
    """What an object says instead of a payload."""

    NORMAL = 0
    """It has a payload, of no bytes."""
    DOES_NOT_EXIST = 1
    """There is no such object (14, 15)."""
    END_OF_GROUP = 3
    """This id and all higher ones of the group do not exist."""
    END_OF_TRACK = 4
    """This location and all greater ones do not exist."""


STATUSES: Final = {True: frozenset(Status), False: frozenset(Status) - {Status.DOES_NOT_EXIST}}
"""The statuses, by `Profile.missing_status`."""


def make_frame(payload: bytes | bytearray, index: int, properties: Pairs, profile: Profile) -> Frame:
    """Return an object as a frame."""
    frame = Frame(payload, timestamp_of(properties, profile) if properties else None)
    frame.object_id = index
    if properties:
        frame.properties = properties
    return frame


def timestamp_of(properties: Pairs, profile: Profile) -> int | None:
    """Return the timestamp that is among some properties, or None."""
    found = None
    for kind, value in properties:
        if kind == TIMESTAMP_PROPERTY and isinstance(value, int):
            return value
        if kind == OLD_TIMESTAMP and isinstance(value, int) and not profile.object_timeouts:
            found = value
    return found


def properties_of(frame: Frame) -> Pairs:
    """Return the properties of a frame: those that it came with, or its timestamp."""
    if frame.properties or frame.timestamp is None:
        return frame.properties
    return ((TIMESTAMP_PROPERTY, frame.timestamp),)


IMMUTABLE: Final = 0x0B
"""Holds properties that no relay changes."""
GROUP_GAP: Final = 0x3C
OBJECT_GAP: Final = 0x3E


def gaps_of(properties: Pairs) -> tuple[int, int]:
    """Return how many groups before an object's, and how many objects before it, do not exist.

    Raises:
        MalformedTrack: One of these properties is there twice, or `IMMUTABLE` is.
    """
    found: dict[int, int] = {}
    for kind, value in properties:
        if kind in (GROUP_GAP, OBJECT_GAP, IMMUTABLE):
            if kind in found:
                raise malformed_track(f"two properties of type {kind:#x} in one object")
            found[kind] = value if isinstance(value, int) else 0
    return found.get(GROUP_GAP, 0), found.get(OBJECT_GAP, 0)


# -- the header of a subgroup's stream -------------------------------------------------------------------------

_SUBGROUP: Final = 0x10
_PROPERTIES: Final = 0x01
_ID: Final = 0x06
_ID_OF_FIRST: Final = 0x02
_ID_FIELD: Final = 0x04
_ENDS_GROUP: Final = 0x08
_DEFAULT_PRIORITY: Final = 0x20
_FIRST_OBJECT: Final = 0x40
_LEAST_URGENT: Final = 255


@attrs.define
class SubgroupHeader:
    """The first bytes of a subgroup's stream.

    Attributes:
        flags: The type, which says what follows and what the stream has.
        alias: The track.
        group: The group.
        subgroup: The subgroup's id; None for the id of the first object.
        priority: 0 first … 255; None for the track's.
    """

    flags: int
    alias: int
    group: int
    subgroup: int | None = 0
    priority: int | None = DEFAULT_PRIORITY

    @property
    def has_properties(self) -> bool:
        """True when each object has a block of properties."""
        return bool(self.flags & _PROPERTIES)

    @property
    def ends_group(self) -> bool:
        """True when the last object on the stream, if it ends with FIN, is the last one of the group."""
        return bool(self.flags & _ENDS_GROUP)

    @property
    def is_first(self) -> bool:
        """True when the stream has the first object that was written to the subgroup (from 18 on)."""
        return bool(self.flags & _FIRST_OBJECT)


def subgroup_flags(
    profile: Profile, *, properties: bool, ends_group: bool, is_first: bool, subgroup: int | None, priority: int | None
) -> int:
    """Return the type of a subgroup's stream; the arguments are as in `SubgroupHeader`."""
    flags = _SUBGROUP | (_PROPERTIES if properties else 0) | (_ENDS_GROUP if ends_group else 0)
    if subgroup is None:
        flags |= _ID_OF_FIRST
    elif subgroup:
        flags |= _ID_FIELD
    if priority is None:
        flags |= _DEFAULT_PRIORITY
    if is_first and profile.first_object:
        flags |= _FIRST_OBJECT
    return flags


def is_subgroup(number: int, profile: Profile) -> bool:
    """Return whether a stream type is that of a subgroup."""
    known = 0x1F | (_DEFAULT_PRIORITY if profile.default_priority else 0)
    known |= _FIRST_OBJECT if profile.first_object else 0
    return bool(number & _SUBGROUP) and not number & ~known and number & _ID != _ID


def read_subgroup_header(data: bytes | bytearray, profile: Profile) -> tuple[SubgroupHeader, int] | None:
    """Return the header at the start of a stream, and the offset after it; None when it is not complete.

    It is `i type, i alias, i group, [i subgroup], [u8 priority]`; `is_subgroup` has to hold for the type.
    """
    # The hot path of a group: numbers of one byte are read in line.
    decode, one_byte, size = profile.decode, profile.one_byte, len(data)
    if size and data[0] < one_byte:
        flags, offset = data[0], 1
    elif (found := decode(data, 0)) is None:
        return None
    else:
        flags, offset = found
    if offset < size and (alias := data[offset]) < one_byte:
        offset += 1
    elif (found := decode(data, offset)) is None:
        return None
    else:
        alias, offset = found
    if (found := decode(data, offset)) is None:
        return None
    group, offset = found
    subgroup: int | None = 0
    if flags & _ID == _ID_FIELD:
        if (found := decode(data, offset)) is None:
            return None
        subgroup, offset = found
    elif flags & _ID == _ID_OF_FIRST:
        subgroup = None
    priority = None
    if not flags & _DEFAULT_PRIORITY:
        if offset >= size:
            return None
        priority = data[offset]
        offset += 1
    return SubgroupHeader(flags, alias, group, subgroup, priority), offset


def write_subgroup_header(header: SubgroupHeader, profile: Profile) -> bytes:
    """Return a header's bytes."""
    if not is_subgroup(header.flags, profile) or (header.priority is None) != bool(header.flags & _DEFAULT_PRIORITY):
        raise LocalProtocolError(f"draft {profile.draft} has no such subgroup: {header}")
    encode = profile.encode
    data = encode(header.flags) + encode(header.alias) + encode(header.group)
    if header.flags & _ID == _ID_FIELD:
        if header.subgroup is None:
            raise LocalProtocolError("a subgroup whose id is a field has an id")
        data += encode(header.subgroup)
    elif header.subgroup:
        raise LocalProtocolError(f"the subgroup {header.subgroup} in a header without its id")
    if header.priority is None:
        return data
    if not 0 <= header.priority <= _LEAST_URGENT:
        raise LocalProtocolError(f"a priority is 0 to 255, not {header.priority}")
    return data + bytes((header.priority,))


# -- datagrams ---------------------------------------------------------------------------------------------------

_LAST: Final = 0x02
_NO_ID: Final = 0x04
_PLAIN_PRIORITY: Final = 0x08
_STATUS: Final = 0x20


@attrs.frozen
class ObjectDatagram:
    """An object that travels as a datagram.

    Attributes:
        flags: The type.
        alias: The track.
        group: The group.
        frame: The object, with its id; empty where there is a status.
        priority: 0 first … 255; None for the track's.
        status: What it says instead of a payload; None for a payload.
    """

    flags: int
    alias: int
    group: int
    frame: Frame = attrs.field(eq=lambda frame: (bytes(frame), frame.object_id, frame.properties))
    priority: int | None = DEFAULT_PRIORITY
    status: Status | None = None

    @property
    def ends_group(self) -> bool:
        """True for the last object of its group."""
        return bool(self.flags & _LAST)


def datagram_flags(frame: Frame, *, ends_group: bool, priority: int | None, status: Status | None) -> int:
    """Return the type of a datagram; the arguments are as in `ObjectDatagram`."""
    flags = _PROPERTIES if properties_of(frame) and status is None else 0
    flags |= _LAST if ends_group else 0
    # Draft 14 has no status without an id.
    flags |= 0 if frame.object_id or status is not None else _NO_ID
    flags |= _PLAIN_PRIORITY if priority is None else 0
    return flags | (_STATUS if status is not None else 0)


def _is_datagram(number: int, profile: Profile) -> bool:
    if profile.datagram_status == "plain":
        return number <= 0x07 or number in (0x20, 0x21)
    return number <= 0x0F or (number & ~0x2D == 0 and bool(number & _STATUS))


def read_datagram(data: bytes, profile: Profile, limits: Limits) -> ObjectDatagram | None:
    """Read `i type, i alias, i group, [i object], [u8 priority], [i size, properties], payload | i status`.

    Returns None for padding.

    Raises:
        Malformed: The bytes are no datagram. Its scope is the session, as the draft says, for an unknown type.
    """
    reader = profile.reader(data, "OBJECT_DATAGRAM")
    number = reader.varint()
    if number == PADDING_DATAGRAM and profile.first_object:
        return None
    if not _is_datagram(number, profile):
        raise reader.malformed(f"a datagram of unknown type {number:#x}")
    alias, group = reader.varint(), reader.varint()
    index = 0 if number & _NO_ID else reader.varint()
    priority = None if number & _PLAIN_PRIORITY else reader.u8()
    properties: Pairs = ()
    if number & _PROPERTIES:
        properties = read_properties(reader, profile, limits)
        if not properties:
            raise reader.malformed("a block of properties without any")
    if not number & _STATUS:
        return ObjectDatagram(number, alias, group, make_frame(reader.rest(), index, properties, profile), priority)
    status = read_status(reader.varint(), profile, "OBJECT_DATAGRAM")
    if status and properties and profile.first_object:
        raise reader.malformed("properties beside a status")
    reader.expect_end()
    return ObjectDatagram(number, alias, group, make_frame(b"", index, properties, profile), priority, status)


def read_status(number: int, profile: Profile, what: str) -> Status:
    """Return a status. Raises `Malformed` for one that the draft lacks."""
    if number not in STATUSES[profile.missing_status]:
        raise Malformed(f"{what}: a status of {number}", code=SessionCode.PROTOCOL_VIOLATION)
    return Status(number)


def check_status(status: Status, profile: Profile) -> Status:
    """Return a status. Raises `LocalProtocolError` for one that the draft lacks."""
    if status not in STATUSES[profile.missing_status]:
        raise LocalProtocolError(f"draft {profile.draft} has no status {status.name}")
    return status


def write_datagram(datagram: ObjectDatagram, profile: Profile) -> bytes:
    """Return a datagram's bytes."""
    flags = datagram.flags
    if not _is_datagram(flags, profile) or (datagram.priority is None) != bool(flags & _PLAIN_PRIORITY):
        raise LocalProtocolError(f"draft {profile.draft} has no such datagram: {datagram}")
    writer = profile.writer()
    writer.varint(flags)
    writer.varint(datagram.alias)
    writer.varint(datagram.group)
    if not flags & _NO_ID:
        writer.varint(datagram.frame.object_id or 0)
    if datagram.priority is not None:
        writer.u8(datagram.priority)
    if flags & _PROPERTIES:
        write_properties(writer, properties_of(datagram.frame), profile)
    if datagram.status is None:
        writer.raw(datagram.frame)
    else:
        writer.varint(check_status(datagram.status, profile))
    return writer.getvalue()


class MalformedTrack(Malformed):
    """A track contradicts itself: its subscription ends, the session goes on."""


def malformed_track(problem: str) -> MalformedTrack:
    """Return the exception for a track that contradicts itself."""
    return MalformedTrack(problem, code=StreamCode.MALFORMED_TRACK, scope="stream")
