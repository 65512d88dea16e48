"""Names and places: namespaces, full track names, locations, reason phrases.

In the layouts of this package `i` is a number, `b` bytes and `s` text with their length in front, `NS` a namespace
(`i count, count × b`), `Loc` a location (`i group, i object`), `Params` a block of parameters (`parameters.py`) and
`Props` a list of properties (`properties.py`).

Names are bytes here: no draft gives them an encoding.

Spec: draft-ietf-moq-transport-18, sections 1.4 and 2.4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ...errors import LocalProtocolError

if TYPE_CHECKING:
    from ..buffer import Reader, Writer
    from .profile import Profile

Namespace: TypeAlias = tuple[bytes, ...]
"""The fields of a namespace, outermost first."""

MAX_FIELDS: Final = 32
MAX_NAME: Final = 4096
"""Bytes of a namespace and a track's name together."""
MAX_REASON: Final = 1024
"""Bytes of a reason phrase."""


class Location(NamedTuple):
    """Where an object is in its track."""

    group: int
    object: int


class TrackName(NamedTuple):
    """A track's full name."""

    namespace: Namespace
    name: bytes


def read_namespace(reader: Reader, profile: Profile, *, whole: bool = False) -> Namespace:
    """Read `NS`: a namespace, a prefix or a suffix. Peers write an empty prefix on each draft.

    Args:
        reader: The message.
        profile: The draft.
        whole: True for a namespace, which has a field at the least, up to draft 16.
    """
    count = reader.varint()
    if count > MAX_FIELDS or (whole and not count and profile.one_control_stream):
        raise reader.malformed(f"a namespace of {count} fields")
    fields = tuple(reader.data("max_message", MAX_NAME) for _ in range(count))
    if sum(map(len, fields)) > MAX_NAME:
        raise reader.malformed(f"a namespace of {sum(map(len, fields))} bytes")
    if profile.refuses_empty_fields and not all(fields):
        raise reader.malformed("a namespace with an empty field")
    return fields


def write_namespace(writer: Writer, namespace: Namespace, profile: Profile) -> None:
    """Write `NS`."""
    if len(namespace) > MAX_FIELDS or sum(map(len, namespace)) > MAX_NAME:
        raise LocalProtocolError(f"a namespace has at most {MAX_FIELDS} fields and {MAX_NAME} bytes")
    if profile.refuses_empty_fields and not all(namespace):
        raise LocalProtocolError("a namespace has no empty field")
    writer.varint(len(namespace))
    for field in namespace:
        writer.data(field)


def read_track(reader: Reader, profile: Profile) -> TrackName:
    """Read `NS, b name`."""
    namespace = read_namespace(reader, profile, whole=True)
    name = reader.data("max_message", MAX_NAME)
    if sum(map(len, namespace)) + len(name) > MAX_NAME:
        raise reader.malformed(f"a full track name of more than {MAX_NAME} bytes")
    return TrackName(namespace, name)


def write_track(writer: Writer, track: TrackName, profile: Profile) -> None:
    """Write `NS, b name`."""
    if sum(map(len, track.namespace)) + len(track.name) > MAX_NAME:
        raise LocalProtocolError(f"a full track name has at most {MAX_NAME} bytes")
    write_namespace(writer, track.namespace, profile)
    writer.data(track.name)


def read_location(reader: Reader) -> Location:
    """Read `Loc`."""
    return Location(reader.varint(), reader.varint())


def write_location(writer: Writer, location: Location) -> None:
    """Write `Loc`."""
    writer.varint(location.group)
    writer.varint(location.object)


def read_reason(reader: Reader) -> str:
    """Read `s reason`. It is for people, so bytes that are no UTF-8 are replaced."""
    return reader.data("max_message", MAX_REASON).decode(errors="replace")


def write_reason(writer: Writer, reason: str) -> None:
    """Write `s reason`, cut to the length that a reason may have."""
    writer.data(reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode())
