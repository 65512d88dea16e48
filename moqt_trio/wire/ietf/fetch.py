"""Control messages about fetches.

In the layouts `[rid]` is there up to 16, where a reply says what it answers, and `<d>` only in 17.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import LocalProtocolError
from .filters import Filter
from .messages import (
    Fetch,
    FetchOk,
    Joining,
)
from .names import (
    Location,
    read_location,
    read_track,
    write_location,
    write_track,
)
from .parts import (
    read_id,
    read_params,
    read_reply_id,
    read_track_properties,
    write_id,
    write_params,
    write_reply_id,
    write_track_properties,
)

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile

_STANDALONE, _RELATIVE, _ABSOLUTE = 1, 2, 3


def read_range(reader: Reader, profile: Profile) -> tuple[Any, Filter | Joining]:
    """Read `i type, {1: NS, b name, Loc start, Loc end | 2, 3: i joining rid, i joining start}`.

    The end is exclusive here, and the object 0 stands for the whole group.
    """
    kind = reader.varint()
    if kind in (_RELATIVE, _ABSOLUTE):
        return None, Joining(reader.varint(), reader.varint(), kind == _ABSOLUTE)
    if kind != _STANDALONE:
        raise reader.malformed(f"a fetch of type {kind:#x}")
    track = read_track(reader, profile)
    start, (end_group, end_object) = read_location(reader), read_location(reader)
    if end_group < start.group or (end_group == start.group and 0 < end_object < start.object):
        raise reader.malformed(f"a range that ends at {end_group}/{end_object}, before {start.group}/{start.object}")
    return track, Filter(start, end_group, end_object - 1 if end_object else None)


def write_range(writer: Writer, message: Fetch, profile: Profile) -> None:
    """Write what `read_range` reads."""
    if isinstance(message.range, Joining):
        writer.varint(_ABSOLUTE if message.range.absolute else _RELATIVE)
        writer.varint(message.range.request_id)
        writer.varint(message.range.start)
        return
    wanted = message.range
    if message.track is None or wanted is None or wanted.end_group is None or not isinstance(wanted.start, Location):
        raise LocalProtocolError(f"a fetch of draft {profile.draft} has a track, a first object and a last group")
    writer.varint(_STANDALONE)
    write_track(writer, message.track, profile)
    write_location(writer, wanted.start)
    write_location(writer, Location(wanted.end_group, 0 if wanted.end_object is None else wanted.end_object + 1))


def read_fetch(reader: Reader, profile: Profile, limits: Limits) -> Fetch:
    """Read `rid, <d>, range, Params`; from 20 on `rid, NS, b name, Params`."""
    request_id = read_id(reader, profile)
    track, wanted = (read_track(reader, profile), None) if profile.fetch_filter else read_range(reader, profile)
    return Fetch(request_id, track, wanted, read_params(reader, profile, limits, Fetch))


def write_fetch(writer: Writer, message: Fetch, profile: Profile) -> None:
    write_id(writer, message.request_id, profile)
    if not profile.fetch_filter:
        write_range(writer, message, profile)
    elif message.track is None or message.range is not None:
        raise LocalProtocolError(f"a fetch of draft {profile.draft} has a track, and its range in the parameters")
    else:
        write_track(writer, message.track, profile)
    write_params(writer, message, profile)


def read_end(reader: Reader, profile: Profile) -> tuple[int, int | None]:
    """Read the end of a FETCH_OK, `Loc`: exclusive up to 19, where the object 0 stands for the whole group."""
    group, number = read_location(reader)
    if profile.fetch_filter:
        return group, number
    return group, number - 1 if number else None


def write_end(writer: Writer, message: FetchOk, profile: Profile) -> None:
    """Write what `read_end` reads."""
    if profile.fetch_filter and message.end_object is None:
        raise LocalProtocolError(f"FETCH_OK of draft {profile.draft} names the last object")
    number = 0 if message.end_object is None else message.end_object + (0 if profile.fetch_filter else 1)
    write_location(writer, Location(message.end_group, number))


def read_fetch_ok(reader: Reader, profile: Profile, limits: Limits) -> FetchOk:
    """Read `[rid], u8 end of track, Loc end, Params, [Props]`."""
    return FetchOk(
        read_reply_id(reader, profile),
        reader.flag(),
        *read_end(reader, profile),
        read_params(reader, profile, limits, FetchOk),
        read_track_properties(reader, profile, limits),
    )


def write_fetch_ok(writer: Writer, message: FetchOk, profile: Profile) -> None:
    write_reply_id(writer, message.request_id, profile)
    writer.flag(message.end_of_track)
    write_end(writer, message, profile)
    write_params(writer, message, profile)
    write_track_properties(writer, message.properties, profile)
