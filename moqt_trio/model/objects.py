"""Frames with object ids and properties, as an application writes them: checked, and stored where they have to be.

A frame has a timestamp in every version. Only moq-transport has other properties, and there the timestamp is one of
them. So a list that has nothing else is not kept: it is written anew when the frame is sent.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

from ..arguments import want_number, want_payload
from ..frame import TIMESTAMP_PROPERTY, Frame
from .group import GroupTraits, whole_group
from .keys import DATAGRAM, PartKey
from .packed import properties_size

if TYPE_CHECKING:
    from ..frame import Properties
    from ..limits import Limits
    from .group import Group

MAX_ID: Final = (1 << 62) - 1
"""The highest object id and subgroup."""
MAX_PROPERTIES: Final = 64
"""Properties of one frame: receivers of this library read as many (`Limits.max_parameters`)."""
_MAX_VALUE: Final = 65535
_MAX_BLOCK: Final = 65535
"""Bytes of the properties of one frame."""
_NUMBERS: Final = 18
"""Bytes that a property takes beside the bytes of its value, at most."""
_MAX_TRACK_PROPERTIES: Final = MAX_PROPERTIES - 3
"""Properties of one track: beside them go its priority, its max age and its timescale."""
_MAX_TRACK_BLOCK: Final = 32 * 1024
"""Bytes of the properties of one track: they share a message of 64 KiB with its name and its path."""
_MAX_NUMBER: Final = (1 << 64) - 1


def timestamp_of(properties: Properties) -> int | None:
    """Return the timestamp that is among some properties, or None."""
    for kind, value in properties:
        if kind == TIMESTAMP_PROPERTY and isinstance(value, int):
            return value
    return None


def check_payload(payload: bytes, limits: Limits) -> None:
    """Raise when a payload is not bytes, or longer than a frame may be."""
    if type(payload) is not bytes:
        want_payload(payload)
    if len(payload) > limits.max_frame:
        raise ValueError(f"a frame has at most {limits.max_frame} bytes, not {len(payload)}")


def check_id(group: Group, object_id: int | None) -> None:
    """Raise ValueError unless an object id is one that the next frame of a group may have; None stands for the next."""
    if object_id is None:
        object_id = group.next_id
    want_number("an object id", object_id)
    if not group.next_id <= object_id <= MAX_ID:
        raise ValueError(f"an object id is {group.next_id} … 2**62-1 here, not {object_id}")


def note_object(group: Group, frame: Frame, object_id: int | None) -> None:
    """Record the object id and the properties of the next frame of a group, where they have to be stored."""
    following = group.next_id
    number = following if object_id is None else object_id
    numbered = group.sparse or number != following
    if numbered or frame.properties:
        traits = group.traits = group.traits or GroupTraits()
        traits.property_bytes += properties_size(frame.properties)
        if numbered:
            frame.object_id, traits.next_id = number, number + 1


def check_subgroup(subgroup: int) -> None:
    """Raise ValueError unless a number is one that a subgroup may have."""
    want_number("a subgroup", subgroup)
    if not 0 <= subgroup <= MAX_ID:
        raise ValueError(f"a subgroup is 0 … 2**62-1, not {subgroup}")


def make_datagram(sequence: int, frame: Frame, object_id: int, traits: GroupTraits, count: int) -> Group:
    """Return a frame that travels alone, as a part of its group; `count` is the number of such in the track.

    Raises:
        ValueError: The object id is out of range.
    """
    want_number("an object id", object_id)
    if not 0 <= object_id <= MAX_ID:
        raise ValueError(f"an object id is 0 … 2**62-1, not {object_id}")
    traits.property_bytes = properties_size(frame.properties)
    if object_id:
        frame.object_id, traits.next_id = object_id, object_id + 1
    group = whole_group(sequence, frame, datagram=True)
    group.traits, group.key = traits, PartKey(sequence, DATAGRAM + count)
    return group


def make_object(payload: bytes, timestamp: int, properties: Properties) -> Frame:
    """Return a frame with properties, of which the timestamp is one; they are kept with rising types.

    Raises:
        ValueError: A type or a value is out of range, or there are too many of them.
        TypeError: A type is no number, or a value is neither a number nor bytes, as its type wants it.
    """
    frame = Frame(payload, timestamp)
    if not properties:
        return frame
    pairs: list[tuple[int, int | bytes]] = []
    written = False
    for kind, value in check_properties(properties):
        if kind >= TIMESTAMP_PROPERTY and not written:
            pairs.append((TIMESTAMP_PROPERTY, timestamp))
            written = True
        if kind != TIMESTAMP_PROPERTY:
            pairs.append((kind, value))
    if not written:
        pairs.append((TIMESTAMP_PROPERTY, timestamp))
    if len(pairs) > MAX_PROPERTIES:
        raise ValueError(f"there are at most {MAX_PROPERTIES} properties, with the timestamp, not {len(pairs)}")
    if len(pairs) > 1:
        frame.properties = tuple(pairs)
    return frame


def check_properties(properties: Properties) -> Properties:
    """Return some properties with rising types. Raises as `make_object` does."""
    for kind, value in properties:
        _check(kind, value)
    if len(properties) > MAX_PROPERTIES:
        raise ValueError(f"there are at most {MAX_PROPERTIES} properties, not {len(properties)}")
    size = sum(_NUMBERS if isinstance(value, int) else _NUMBERS + len(value) for _, value in properties)
    if properties and size + _NUMBERS > _MAX_BLOCK:
        raise ValueError(f"properties have at most {_MAX_BLOCK} bytes in all, not {size + _NUMBERS}")
    return tuple(sorted(properties, key=itemgetter(0)))


def check_track_properties(properties: Properties) -> Properties:
    """Return the properties of a track, with rising types: those that every draft can carry in one message.

    Raises: as `make_object` does.
    """
    checked = check_properties(properties)
    if len(checked) > _MAX_TRACK_PROPERTIES:
        raise ValueError(f"a track has at most {_MAX_TRACK_PROPERTIES} properties, not {len(checked)}")
    size = sum(_NUMBERS if isinstance(value, int) else _NUMBERS + len(value) for _, value in checked)
    if size > _MAX_TRACK_BLOCK:
        raise ValueError(f"the properties of a track have at most {_MAX_TRACK_BLOCK} bytes in all, not {size}")
    for kind, value in checked:
        if max(kind, value if isinstance(value, int) else 0) > MAX_ID:
            raise ValueError(f"types and numbers of a track's properties are 0 … 2**62-1, not {kind} and {value!r}")
    return checked


def _check(kind: int, value: int | bytes) -> None:
    want_number("the type of a property", kind)
    if not 0 <= kind <= _MAX_NUMBER:
        raise ValueError(f"the type of a property is 0 … 2**64-1, not {kind}")
    if kind % 2:
        if not isinstance(value, bytes):
            raise TypeError(f"the value of a property of odd type is bytes, and not {type(value).__name__}")
        if len(value) > _MAX_VALUE:
            raise ValueError(f"the value of a property has at most {_MAX_VALUE} bytes, not {len(value)}")
        return
    if not isinstance(value, int):
        raise TypeError(f"the value of a property of even type is a whole number, and not {type(value).__name__}")
    if not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"the value of a property of even type is 0 … 2**64-1, not {value}")
