"""The moq-lite messages that ask for a track's groups, answer, and head them: SUBSCRIBE, FETCH, TRACK, GROUP.

Each function reads or writes one message's body in the layout that its docstring shows; `versions.py` says which
version uses which. In the layouts `i` is a varint, `u8` a byte, `s` text with its length in front, and `opt` a
varint that is one above its meaning, 0 for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode
from ...errors import LocalProtocolError, Malformed
from ..messages import (
    Fetch,
    Group,
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
    TrackRequest,
)

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer


def read_names(reader: Reader, limits: Limits) -> tuple[str, str]:
    """Read `s broadcast, s track`."""
    return reader.path(limits), reader.text("max_track_name", limits.max_track_name)


def write_names(writer: Writer, broadcast: str, track: str) -> None:
    """Write `s broadcast, s track`."""
    writer.text(broadcast)
    writer.text(track)


def _bad_range(reader: Reader, problem: str) -> Malformed:
    # The bytes are well-formed and only this request is invalid, so only its stream is reset.
    return Malformed(f"{reader.what}: {problem}", code=StreamCode.INTERNAL_ERROR, scope="stream")


# -- SUBSCRIBE and SUBSCRIBE_UPDATE ---------------------------------------------------------------------------


def read_subscribe(reader: Reader, limits: Limits) -> Subscribe:
    """Read `i id, s broadcast, s track, u8 priority, u8 ordered, i max_age_ms, opt start, opt end` (-03 to -05)."""
    subscribe_id, (broadcast, track) = reader.varint(), read_names(reader, limits)
    update = read_subscribe_update(reader, limits)
    return Subscribe(
        subscribe_id,
        broadcast,
        track,
        update.priority,
        update.ordered,
        update.max_age_ms,
        update.start_group,
        update.end_group,
    )


def write_subscribe(writer: Writer, message: Subscribe) -> None:
    """Write `i id, s broadcast, s track, u8 priority, u8 ordered, i max_age_ms, opt start, opt end`."""
    writer.varint(message.subscribe_id)
    write_names(writer, message.broadcast, message.track)
    write_subscribe_update(writer, message)


def read_subscribe_update(reader: Reader, limits: Limits) -> SubscribeUpdate:
    """Read `u8 priority, u8 ordered, i max_age_ms, opt start, opt end` (-03 to -05)."""
    return SubscribeUpdate(reader.u8(), reader.flag(), reader.varint(), reader.optional(), reader.optional())


def write_subscribe_update(writer: Writer, message: Subscribe | SubscribeUpdate) -> None:
    """Write `u8 priority, u8 ordered, i max_age_ms, opt start, opt end`."""
    if message.start_frame or message.end_frame is not None:
        raise LocalProtocolError("this version can't subscribe to a range of frames")
    writer.u8(message.priority)
    writer.flag(message.ordered)
    writer.varint(message.max_age_ms)
    writer.optional(message.start_group)
    writer.optional(message.end_group)


def read_subscribe_frames(reader: Reader, limits: Limits) -> Subscribe:
    """Read `i id, s broadcast, s track, u8 priority, i max_age_ms, i start, opt end, i first_frame, opt last_frame`.

    Spec: moq-lite-06, SUBSCRIBE.
    """
    subscribe_id, (broadcast, track) = reader.varint(), read_names(reader, limits)
    update = read_subscribe_frames_update(reader, limits)
    return Subscribe(
        subscribe_id,
        broadcast,
        track,
        update.priority,
        False,
        update.max_age_ms,
        update.start_group,
        update.end_group,
        update.start_frame,
        update.end_frame,
    )


def write_subscribe_frames(writer: Writer, message: Subscribe) -> None:
    """Write what `read_subscribe_frames` reads; a preference for order is left out."""
    writer.varint(message.subscribe_id)
    write_names(writer, message.broadcast, message.track)
    write_subscribe_frames_update(writer, message)


def read_subscribe_frames_update(reader: Reader, limits: Limits) -> SubscribeUpdate:
    """Read `u8 priority, i max_age_ms, i start, opt end, i first_frame, opt last_frame` (-06).

    A start of 0 is no lower bound.
    """
    update = SubscribeUpdate(
        priority=reader.u8(),
        max_age_ms=reader.varint(),
        start_group=reader.varint() or None,
        end_group=reader.optional(),
        start_frame=reader.varint(),
        end_frame=reader.optional(),
    )
    if update.end_frame is not None and update.end_group is None:
        raise _bad_range(reader, "an end frame without an end group")
    return update


def write_subscribe_frames_update(writer: Writer, message: Subscribe | SubscribeUpdate) -> None:
    """Write what `read_subscribe_frames_update` reads; a preference for order is left out."""
    if message.end_frame is not None and message.end_group is None:
        raise LocalProtocolError("an end frame is one of the end group, and there is none")
    writer.u8(message.priority)
    writer.varint(message.max_age_ms)
    writer.varint(message.start_group or 0)
    writer.optional(message.end_group)
    writer.varint(message.start_frame)
    writer.optional(message.end_frame)


# -- the replies of a subscribe stream ------------------------------------------------------------------------


def read_ok(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read `u8 priority, u8 ordered, i max_age_ms, opt start, opt end` (-03, -04)."""
    priority, ordered, max_age_ms = reader.u8(), reader.flag(), reader.varint()
    return SubscribeOk(reader.optional(), priority, ordered, max_age_ms, reader.optional())


def write_ok(writer: Writer, message: SubscribeOk) -> None:
    """Write `u8 priority, u8 ordered, i max_age_ms, opt start, opt end`."""
    writer.u8(message.priority)
    writer.flag(message.ordered)
    writer.varint(message.max_age_ms)
    writer.optional(message.start_group)
    writer.optional(message.end_group)


def read_first_group(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read `i first_group` (-05, -06)."""
    return SubscribeOk(reader.varint())


def write_first_group(writer: Writer, message: SubscribeOk) -> None:
    """Write `i first_group`."""
    if message.start_group is None:
        raise LocalProtocolError("this version accepts a subscription with its first group, and there is none")
    writer.varint(message.start_group)


def read_end(reader: Reader, limits: Limits) -> SubscribeEnd:
    """Read `i group` (-05, -06)."""
    return SubscribeEnd(reader.varint())


def write_end(writer: Writer, message: SubscribeEnd) -> None:
    """Write `i group`."""
    writer.varint(message.group)


def read_drop(reader: Reader, limits: Limits) -> SubscribeDrop:
    """Read `i start, i end, i code`, the end inclusive."""
    drop = SubscribeDrop(reader.varint(), reader.varint(), reader.varint())
    if drop.end < drop.start:
        raise _bad_range(reader, "a range that ends before it starts")
    return drop


def write_drop(writer: Writer, message: SubscribeDrop) -> None:
    """Write `i start, i end, i code`."""
    if message.end < message.start:
        raise LocalProtocolError(f"groups {message.start} to {message.end} are no range")
    writer.varint(message.start)
    writer.varint(message.end)
    writer.varint(message.code)


# -- GROUP ----------------------------------------------------------------------------------------------------


def read_group(reader: Reader, limits: Limits) -> Group:
    """Read `i subscribe_id, i sequence` (-03 to -05)."""
    return Group(reader.varint(), reader.varint())


def write_group(writer: Writer, message: Group) -> None:
    """Write `i subscribe_id, i sequence`."""
    if message.start_frame:
        raise LocalProtocolError("this version sends a group from its first frame on")
    writer.varint(message.subscribe_id)
    writer.varint(message.sequence)


def read_group_from_frame(reader: Reader, limits: Limits) -> Group:
    """Read `i subscribe_id, i sequence, i start_frame` (-06)."""
    return Group(reader.varint(), reader.varint(), reader.varint())


def write_group_from_frame(writer: Writer, message: Group) -> None:
    """Write `i subscribe_id, i sequence, i start_frame`."""
    writer.varint(message.subscribe_id)
    writer.varint(message.sequence)
    writer.varint(message.start_frame)


# -- FETCH ----------------------------------------------------------------------------------------------------


def read_fetch(reader: Reader, limits: Limits) -> Fetch:
    """Read `s broadcast, s track, u8 priority, i group` (-03 to -05)."""
    broadcast, track = read_names(reader, limits)
    return Fetch(broadcast, track, reader.u8(), reader.varint())


def write_fetch(writer: Writer, message: Fetch) -> None:
    """Write `s broadcast, s track, u8 priority, i group`."""
    if message.start_frame or message.end_frame is not None:
        raise LocalProtocolError("this version fetches a whole group")
    write_names(writer, message.broadcast, message.track)
    writer.u8(message.priority)
    writer.varint(message.group)


def read_fetch_frames(reader: Reader, limits: Limits) -> Fetch:
    """Read `s broadcast, s track, u8 priority, i group, i first_frame, opt last_frame` (-06)."""
    broadcast, track = read_names(reader, limits)
    fetch = Fetch(broadcast, track, reader.u8(), reader.varint(), reader.varint(), reader.optional())
    if fetch.end_frame is not None and fetch.end_frame < fetch.start_frame:
        raise _bad_range(reader, "a range of no frames")
    return fetch


def write_fetch_frames(writer: Writer, message: Fetch) -> None:
    """Write `s broadcast, s track, u8 priority, i group, i first_frame, opt last_frame`."""
    if message.end_frame is not None and message.end_frame < message.start_frame:
        raise LocalProtocolError(f"frames {message.start_frame} to {message.end_frame} are no range")
    write_names(writer, message.broadcast, message.track)
    writer.u8(message.priority)
    writer.varint(message.group)
    writer.varint(message.start_frame)
    writer.optional(message.end_frame)


# -- TRACK ----------------------------------------------------------------------------------------------------


def read_track(reader: Reader, limits: Limits) -> TrackRequest:
    """Read `s broadcast, s track` (-05, -06)."""
    return TrackRequest(*read_names(reader, limits))


def write_track(writer: Writer, message: TrackRequest) -> None:
    """Write `s broadcast, s track`."""
    write_names(writer, message.broadcast, message.track)


def read_ordered_track_info(reader: Reader, limits: Limits) -> TrackInfo:
    """Read `u8 priority, u8 ordered, i max_age_ms, i timescale` (-05)."""
    return TrackInfo(reader.u8(), reader.flag(), reader.varint(), _read_timescale(reader))


def write_ordered_track_info(writer: Writer, message: TrackInfo) -> None:
    """Write `u8 priority, u8 ordered, i max_age_ms, i timescale`."""
    writer.u8(message.priority)
    writer.flag(message.ordered)
    writer.varint(message.max_age_ms)
    _write_timescale(writer, message.timescale)


def read_track_info(reader: Reader, limits: Limits) -> TrackInfo:
    """Read `u8 priority, i max_age_ms, i timescale` (-06)."""
    return TrackInfo(priority=reader.u8(), max_age_ms=reader.varint(), timescale=_read_timescale(reader))


def write_track_info(writer: Writer, message: TrackInfo) -> None:
    """Write `u8 priority, i max_age_ms, i timescale`; a preference for order is left out."""
    writer.u8(message.priority)
    writer.varint(message.max_age_ms)
    _write_timescale(writer, message.timescale)


def _read_timescale(reader: Reader) -> int:
    timescale = reader.varint()
    if not timescale:
        raise reader.malformed("a timescale of 0")
    return timescale


def _write_timescale(writer: Writer, timescale: int) -> None:
    if not timescale:
        raise LocalProtocolError("a timescale is at least 1 per second")
    writer.varint(timescale)
