"""moq-transfork-03: the draft that moq-lite is derived from.

    message { Body (..) }

No message has a length in front: its type depends on the stream and the place in it, and it ends after its last field.
Nothing can be skipped. `tuples.py` has the paths. In the layouts `i` is a varint, `path` a tuple of texts, and `opt` a
varint that is one above its meaning, 0 for none.

Spec: draft-lcurley-moq-transfork-03.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...codes import SessionCode, StreamCode
from ...errors import LocalProtocolError
from ..buffer import Incomplete, UnframedReader, Writer
from ..dialect import Features, register
from ..handshake import HandshakeForm, read_session_update, write_session_update
from ..lite import subscribe as subscribe
from ..lite.announce import refuse_restart
from ..messages import (
    AnnounceEnd,
    AnnounceLive,
    AnnounceRequest,
    AnnounceStart,
    Expect,
    Fetch,
    FetchUpdate,
    Group,
    Message,
    SessionUpdate,
    StreamKind,
    Subscribe,
    SubscribeDrop,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
    TrackRequest,
)
from ..tables import Reads, TableDialect, Writes
from . import tuples as paths

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, StreamBuffer

ENDED: Final = 0
ACTIVE: Final = 1
LIVE: Final = 2

# -- announcements --------------------------------------------------------------------------------------------


def _read_request(reader: Reader, limits: Limits) -> AnnounceRequest:
    """Read `path prefix`."""
    return AnnounceRequest(paths.read_path(reader, limits))


def _write_request(writer: Writer, message: AnnounceRequest) -> None:
    """Write `path prefix`."""
    paths.write_path(writer, message.prefix)


def read_status(reader: Reader) -> int:
    """Read `i status`: ended, active or live."""
    status = reader.varint()
    if status > LIVE:
        raise reader.malformed(f"unknown status {status}")
    return status


def write_suffix(writer: Writer, message: AnnounceStart | AnnounceEnd) -> None:
    """Write `i status, path suffix`."""
    if isinstance(message, AnnounceStart):
        refuse_restart(message)
    elif message.suffix is None:
        raise LocalProtocolError("this version ends an announcement by its suffix")
    writer.varint(ACTIVE if isinstance(message, AnnounceStart) else ENDED)
    paths.write_path(writer, message.suffix or "")


def _read_announce(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd | AnnounceLive:
    """Read `i status, path suffix`, or `i status` alone where it is live."""
    status = read_status(reader)
    if status == LIVE:
        return AnnounceLive()
    suffix = paths.read_path(reader, limits)
    return AnnounceStart(suffix) if status == ACTIVE else AnnounceEnd(suffix=suffix)


def _write_live(writer: Writer, message: AnnounceLive) -> None:
    """Write `i status`."""
    writer.varint(LIVE)


# -- subscriptions --------------------------------------------------------------------------------------------


def _read_subscribe(reader: Reader, limits: Limits) -> Subscribe:
    """Read `i id, path track, i priority, i order, i max_age_ms, opt start, opt end`."""
    subscribe_id, (broadcast, track) = reader.varint(), paths.read_track(reader, limits)
    update = _read_subscribe_update(reader, limits)
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


def _write_subscribe(writer: Writer, message: Subscribe) -> None:
    """Write what `_read_subscribe` reads."""
    writer.varint(message.subscribe_id)
    paths.write_track(writer, message.broadcast, message.track)
    _write_subscribe_update(writer, message)


def _read_subscribe_update(reader: Reader, limits: Limits) -> SubscribeUpdate:
    """Read `i priority, i order, i max_age_ms, opt start, opt end`."""
    priority, ordered = paths.read_priority(reader), paths.read_order(reader)
    return SubscribeUpdate(priority, ordered, reader.varint(), reader.optional(), reader.optional())


def _write_subscribe_update(writer: Writer, message: Subscribe | SubscribeUpdate) -> None:
    """Write what `_read_subscribe_update` reads."""
    refuse_frames(message)
    paths.write_priority(writer, message.priority)
    paths.write_order(writer, message.ordered)
    writer.varint(message.max_age_ms)
    writer.optional(message.start_group)
    writer.optional(message.end_group)


def refuse_frames(message: Subscribe | SubscribeUpdate) -> None:
    """Raise `LocalProtocolError` for a subscription to a range of frames."""
    if message.start_frame or message.end_frame is not None:
        raise LocalProtocolError("this version can't subscribe to a range of frames")


def _read_info(reader: Reader, limits: Limits) -> TrackInfo:
    """Read `i priority, i latest, i order, i max_age_ms`. A latest group of 0 may also say that there is none."""
    priority, latest, ordered = paths.read_priority(reader), reader.varint(), paths.read_order(reader)
    return TrackInfo(priority, ordered, reader.varint(), latest_group=latest or None)


def _write_info(writer: Writer, message: TrackInfo) -> None:
    """Write `i priority, i latest, i order, i max_age_ms`."""
    paths.write_priority(writer, message.priority)
    writer.varint(message.latest_group or 0)
    paths.write_order(writer, message.ordered)
    writer.varint(message.max_age_ms)


def accepted_by(info: TrackInfo) -> SubscribeOk:
    """Return the SUBSCRIBE_OK that an INFO is on a subscribe stream."""
    return SubscribeOk(None, info.priority, info.ordered, info.max_age_ms, latest_group=info.latest_group)


def info_of(message: SubscribeOk) -> TrackInfo:
    """Return the INFO that accepts a subscription. Its latest group is at least the first group that it names."""
    latest = message.start_group if message.latest_group is None else message.latest_group
    return TrackInfo(message.priority, message.ordered, message.max_age_ms, latest_group=latest)


def _read_accepting_info(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read what `_read_info` reads."""
    return accepted_by(_read_info(reader, limits))


def _write_accepting_info(writer: Writer, message: SubscribeOk) -> None:
    """Write what `_write_info` writes."""
    _write_info(writer, info_of(message))


def _read_gap(reader: Reader, limits: Limits) -> SubscribeDrop:
    """Read `i start, i count, i code`; the count is of the groups after the first."""
    start, more = reader.varint(), reader.varint()
    return SubscribeDrop(start, start + more, reader.varint())


def _write_gap(writer: Writer, message: SubscribeDrop) -> None:
    """Write `i start, i count, i code`."""
    if message.end < message.start:
        raise LocalProtocolError(f"groups {message.start} to {message.end} are no range")
    writer.varint(message.start)
    writer.varint(message.end - message.start)
    writer.varint(message.code)


# -- requests for one group, or for a track's properties ------------------------------------------------------


def _read_fetch(reader: Reader, limits: Limits) -> Fetch:
    """Read `path track, i priority, i group, i first_frame`."""
    broadcast, track = paths.read_track(reader, limits)
    return Fetch(broadcast, track, paths.read_priority(reader), reader.varint(), reader.varint())


def write_fetch_from_frame(writer: Writer, message: Fetch) -> None:
    """Write `path track, i priority, i group, i first_frame`."""
    if message.end_frame is not None:
        raise LocalProtocolError("this version fetches a group to its end")
    paths.write_track(writer, message.broadcast, message.track)
    paths.write_priority(writer, message.priority)
    writer.varint(message.group)
    writer.varint(message.start_frame)


def read_fetch_update(reader: Reader, limits: Limits) -> FetchUpdate:
    """Read `i priority`."""
    return FetchUpdate(paths.read_priority(reader))


def write_fetch_update(writer: Writer, message: FetchUpdate) -> None:
    """Write `i priority`."""
    paths.write_priority(writer, message.priority)


def _read_track_request(reader: Reader, limits: Limits) -> TrackRequest:
    """Read `path track`."""
    return TrackRequest(*paths.read_track(reader, limits))


def write_track_request(writer: Writer, message: TrackRequest) -> None:
    """Write `path track`."""
    paths.write_track(writer, message.broadcast, message.track)


# -- the version ----------------------------------------------------------------------------------------------

BIDIRECTIONAL: Final = {
    0: StreamKind.SESSION,
    1: StreamKind.ANNOUNCE,
    2: StreamKind.SUBSCRIBE,
    3: StreamKind.FETCH,
    4: StreamKind.TRACK,
}
UNIDIRECTIONAL: Final = {0: StreamKind.GROUP}

FEATURES: Final = Features(
    setup="session",
    announce_live=True,
    announce_tracks=True,
    track_in_path=True,
    subscribe_drop=True,
    update_keeps_range=True,
    max_age=True,
    fetch_update=True,
    unknown_stream_closes=True,
)

_READS: Reads = {
    Expect.SESSION_UPDATE: read_session_update,
    Expect.ANNOUNCE_REQUEST: _read_request,
    Expect.ANNOUNCE_REPLY: _read_announce,
    Expect.SUBSCRIBE: _read_subscribe,
    Expect.SUBSCRIBE_UPDATE: _read_subscribe_update,
    Expect.SUBSCRIBE_FIRST_REPLY: _read_accepting_info,
    Expect.SUBSCRIBE_REPLY: _read_gap,
    Expect.GROUP: subscribe.read_group,
    Expect.FETCH: _read_fetch,
    Expect.FETCH_UPDATE: read_fetch_update,
    Expect.TRACK_REQUEST: _read_track_request,
    Expect.TRACK_INFO: _read_info,
}

WRITES: Writes = {
    SessionUpdate: write_session_update,
    AnnounceRequest: _write_request,
    AnnounceStart: write_suffix,
    AnnounceEnd: write_suffix,
    AnnounceLive: _write_live,
    Subscribe: _write_subscribe,
    SubscribeUpdate: _write_subscribe_update,
    SubscribeOk: _write_accepting_info,
    SubscribeDrop: _write_gap,
    Group: subscribe.write_group,
    Fetch: write_fetch_from_frame,
    FetchUpdate: write_fetch_update,
    TrackRequest: write_track_request,
    TrackInfo: _write_info,
}


class TransforkDialect(TableDialect):
    """moq-transfork-03, made from its tables: a body is all there is to a message."""

    def encode(self, message: Message) -> bytes:
        writer = Writer()
        write = self._writes.get(type(message))
        if write is None:
            raise self._lacks(type(message).__name__)
        assert not isinstance(write, tuple)
        write(writer, message)
        return writer.getvalue()

    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        """Take the next message out of a buffer, or return None; see `Dialect.read_untrusted`.

        An error in a GROUP header and a path with an invalid part break the stream; any other error breaks the session.

        Raises:
            LocalProtocolError: The version has no such place.
        """
        read = self._reads.get(expect)
        if read is None:
            raise self._lacks(expect.value)
        assert callable(read)
        group = expect is Expect.GROUP
        code: int = StreamCode.MALFORMED_TRACK if group else SessionCode.PROTOCOL_VIOLATION
        try:
            reader = UnframedReader(buffer, limits.max_message, expect.value, "stream" if group else "session", code)
            message = read(reader, limits)
        except Incomplete:
            return None
        reader.finish()
        return message


TRANSFORK_03 = register(
    TransforkDialect(
        "moq-transfork-03",
        features=FEATURES,
        bidirectional=BIDIRECTIONAL,
        unidirectional=UNIDIRECTIONAL,
        reads=_READS,
        writes=WRITES,
        alpns=("moq-00",),
        webtransport_protocols=(),
        handshakes=(HandshakeForm.UNFRAMED,),
        number=0xFF0BAD03,
    )
)
