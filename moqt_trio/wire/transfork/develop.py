"""gomoqt's develop version: moq-transfork-03 with lengths, and with parameters at the end of some messages.

    message { Length (varint), Body (..) }

It is what gomoqt spoke early in 2025, faults included. The reader accepts what that program wrote; the writer writes
only what its reader accepts. In the layouts `i` is a varint, `path` a tuple of texts, and `params?` is
`i count, {i id, i length, bytes} …`, or nothing at all. Sequences count from 1: a group of 0 stands for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from ...codes import CodeTable, SessionCode, StreamCode
from ...errors import LocalProtocolError
from ..dialect import Quirks, register
from ..handshake import HandshakeForm, read_session_update
from ..lite import subscribe as subscribe
from ..messages import (
    AnnounceEnd,
    AnnounceLive,
    AnnounceRequest,
    AnnounceStart,
    Expect,
    Fetch,
    Message,
    Parameters,
    Subscribe,
    SubscribeDrop,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
    TrackRequest,
)
from ..tables import Reads, TableDialect, Writes
from . import transfork
from . import tuples as paths

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, StreamBuffer, Writer

# gomoqt counts a nil list as no byte and writes it as one: a zero is left over after the message.
_STRAY_ZEROS: Final = frozenset(
    {
        Expect.SESSION_UPDATE,
        Expect.ANNOUNCE_REPLY,
        Expect.SUBSCRIBE_UPDATE,
        Expect.SUBSCRIBE_FIRST_REPLY,
        Expect.SUBSCRIBE_REPLY,
        Expect.FETCH_UPDATE,
        Expect.TRACK_INFO,
    }
)
"""The places where an empty message is no message, but the zero after a message that was counted a byte short."""


def _read_parameters(reader: Reader, limits: Limits) -> Parameters | None:
    if not reader.remaining:
        return None
    count = reader.count("max_parameters", limits.max_parameters, item_size=2)
    return tuple((reader.varint(), reader.data("max_message", limits.max_message)) for _ in range(count))


def _write_parameters(writer: Writer, parameters: Parameters | None) -> None:
    if parameters is None:
        return
    writer.varint(len(parameters))
    for number, value in parameters:
        if not isinstance(value, bytes):
            raise LocalProtocolError(f"parameter {number:#x} is bytes in this version")
        writer.varint(number)
        writer.data(value)


# -- announcements --------------------------------------------------------------------------------------------


def _read_request(reader: Reader, limits: Limits) -> AnnounceRequest:
    """Read `path prefix, params?`; no byte at all is the empty prefix."""
    prefix = paths.read_path(reader, limits) if reader.remaining else ""
    return AnnounceRequest(prefix, parameters=_read_parameters(reader, limits))


def _write_request(writer: Writer, message: AnnounceRequest) -> None:
    """Write `path prefix, params?`."""
    paths.write_path(writer, message.prefix)
    _write_parameters(writer, message.parameters)


def _read_announce(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd | AnnounceLive:
    """Read `i status, path suffix, params?`; the suffix may be missing where the status is live."""
    status = transfork.read_status(reader)
    written = bool(reader.remaining)
    suffix = paths.read_path(reader, limits) if written or status != transfork.LIVE else ""
    parameters = _read_parameters(reader, limits)
    if status == transfork.LIVE:
        return AnnounceLive(parameters, written)
    if status == transfork.ACTIVE:
        return AnnounceStart(suffix, parameters=parameters)
    return AnnounceEnd(suffix=suffix, parameters=parameters)


def _write_announce(writer: Writer, message: AnnounceStart | AnnounceEnd) -> None:
    """Write `i status, path suffix, params?`."""
    transfork.write_suffix(writer, message)
    _write_parameters(writer, message.parameters)


def _write_live(writer: Writer, message: AnnounceLive) -> None:
    """Write `i status, path suffix, params?` with the empty suffix: without it gomoqt's own reader fails."""
    writer.varint(transfork.LIVE)
    paths.write_path(writer, "")
    _write_parameters(writer, message.parameters)


# -- subscriptions --------------------------------------------------------------------------------------------


def _read_subscribe(reader: Reader, limits: Limits) -> Subscribe:
    """Read `i id, path track, i priority, i order, i start, i end, params?`."""
    subscribe_id, (broadcast, track) = reader.varint(), paths.read_track(reader, limits)
    update = _read_subscribe_update(reader, limits)
    return Subscribe(
        subscribe_id,
        broadcast,
        track,
        update.priority,
        update.ordered,
        start_group=update.start_group,
        end_group=update.end_group,
        parameters=update.parameters,
    )


def _write_subscribe(writer: Writer, message: Subscribe) -> None:
    """Write what `_read_subscribe` reads; a preference for age is left out."""
    writer.varint(message.subscribe_id)
    paths.write_track(writer, message.broadcast, message.track)
    _write_subscribe_update(writer, message)


def _read_subscribe_update(reader: Reader, limits: Limits) -> SubscribeUpdate:
    """Read `i priority, i order, i start, i end, params?`."""
    return SubscribeUpdate(
        priority=paths.read_priority(reader),
        ordered=paths.read_order(reader),
        start_group=reader.varint() or None,
        end_group=reader.varint() or None,
        parameters=_read_parameters(reader, limits),
    )


def _write_subscribe_update(writer: Writer, message: Subscribe | SubscribeUpdate) -> None:
    """Write what `_read_subscribe_update` reads; a preference for age is left out."""
    transfork.refuse_frames(message)
    if message.start_group == 0 or message.end_group == 0:
        raise LocalProtocolError("this version counts groups from 1, so a range can't start or end at group 0")
    paths.write_priority(writer, message.priority)
    paths.write_order(writer, message.ordered)
    writer.varint(message.start_group or 0)
    writer.varint(message.end_group or 0)
    _write_parameters(writer, message.parameters)


def _read_info(reader: Reader, limits: Limits) -> TrackInfo:
    """Read `i priority, i latest, i order`."""
    priority, latest = paths.read_priority(reader), reader.varint()
    return TrackInfo(priority, paths.read_order(reader), latest_group=latest or None)


def _write_info(writer: Writer, message: TrackInfo) -> None:
    """Write `i priority, i latest, i order`; how long groups are kept is left out."""
    paths.write_priority(writer, message.priority)
    writer.varint(message.latest_group or 0)
    paths.write_order(writer, message.ordered)


def _read_accepting_info(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read what `_read_info` reads."""
    return transfork.accepted_by(_read_info(reader, limits))


def _write_accepting_info(writer: Writer, message: SubscribeOk) -> None:
    """Write what `_write_info` writes."""
    _write_info(writer, transfork.info_of(message))


# -- requests for one group, or for a track's properties ------------------------------------------------------


def _read_fetch(reader: Reader, limits: Limits) -> Fetch:
    """Read `i subscribe_id, path track, i priority, i group, i first_frame`; the last may be missing."""
    subscribe_id, (broadcast, track) = reader.varint(), paths.read_track(reader, limits)
    priority, group = paths.read_priority(reader), reader.varint()
    start_frame = reader.varint() if reader.remaining else 0
    return Fetch(broadcast, track, priority, group, start_frame, subscribe_id=subscribe_id)


def _write_fetch(writer: Writer, message: Fetch) -> None:
    """Write `i subscribe_id, path track, i priority, i group, i first_frame`."""
    writer.varint(message.subscribe_id)
    transfork.write_fetch_from_frame(writer, message)


def _read_track_request(reader: Reader, limits: Limits) -> TrackRequest:
    """Read `path track`; no byte at all names no track."""
    return TrackRequest(*(paths.read_track(reader, limits) if reader.remaining else ("", "")))


# -- the version ----------------------------------------------------------------------------------------------

_READS: Reads = {
    Expect.SESSION_UPDATE: read_session_update,
    Expect.ANNOUNCE_REQUEST: _read_request,
    Expect.ANNOUNCE_REPLY: _read_announce,
    Expect.SUBSCRIBE: _read_subscribe,
    Expect.SUBSCRIBE_UPDATE: _read_subscribe_update,
    Expect.SUBSCRIBE_FIRST_REPLY: _read_accepting_info,
    Expect.SUBSCRIBE_REPLY: subscribe.read_drop,
    Expect.GROUP: subscribe.read_group,
    Expect.FETCH: _read_fetch,
    Expect.FETCH_UPDATE: transfork.read_fetch_update,
    Expect.TRACK_REQUEST: _read_track_request,
    Expect.TRACK_INFO: _read_info,
}

_WRITES: Writes = {
    **transfork.WRITES,
    AnnounceRequest: _write_request,
    AnnounceStart: _write_announce,
    AnnounceEnd: _write_announce,
    AnnounceLive: _write_live,
    Subscribe: _write_subscribe,
    SubscribeUpdate: _write_subscribe_update,
    SubscribeOk: _write_accepting_info,
    SubscribeDrop: subscribe.write_drop,
    Fetch: _write_fetch,
    TrackInfo: _write_info,
}


_DUPLICATE: Final = 1 << 32
"""The code of something that is there twice. It stands only inside this library, whose own codes have 32 bits."""

CODES: Final = CodeTable(
    numbers={
        "session": {
            SessionCode.NO_ERROR: 0x0,
            SessionCode.INTERNAL_ERROR: 0x1,
            SessionCode.UNAUTHORIZED: 0x2,
            SessionCode.PROTOCOL_VIOLATION: 0x3,
            SessionCode.KEY_VALUE_FORMATTING_ERROR: 0x5,
            SessionCode.GOAWAY_TIMEOUT: 0x10,
        },
        "announce": {StreamCode.INTERNAL_ERROR: 0x0, _DUPLICATE: 0x1},
        # A number is read as the first code that has it.
        "subscribe": {
            StreamCode.INTERNAL_ERROR: 0x0,
            _DUPLICATE: 0x2,
            StreamCode.NOT_FOUND: 0x3,
            StreamCode.UNROUTABLE: 0x3,
            StreamCode.CONTROL_TIMEOUT: 0x5,
            StreamCode.DELIVERY_TIMEOUT: 0x5,
        },
        "fetch": {StreamCode.INTERNAL_ERROR: 0x0, StreamCode.NOT_FOUND: 0x1, StreamCode.EVICTED: 0x1},
        "info": {StreamCode.INTERNAL_ERROR: 0x0, StreamCode.NOT_FOUND: 0x1, StreamCode.UNROUTABLE: 0x1},
        "group": {
            StreamCode.INTERNAL_ERROR: 0x0,
            StreamCode.CANCELLED: 0x1,
            StreamCode.OLD: 0x3,
            StreamCode.TOO_FAR_BEHIND: 0x3,
            StreamCode.EVICTED: 0x3,
            StreamCode.DELIVERY_TIMEOUT: 0x4,
            StreamCode.NOT_FOUND: 0x5,
        },
        "stream": {StreamCode.INTERNAL_ERROR: 0x0, StreamCode.CANCELLED: 0x10},
    },
    fallback={
        "session": 0x1,
        "announce": 0x0,
        "subscribe": 0x0,
        "fetch": 0x0,
        "info": 0x0,
        "group": 0x0,
        "stream": 0x0,
    },
    duplicates={"announce": _DUPLICATE, "subscribe": _DUPLICATE},
)
"""The error codes: each kind of stream has numbers of its own."""


class DevelopDialect(TableDialect):
    """gomoqt's develop version, made from its tables."""

    codes = CODES

    def split_stream_type(self, data: bytes) -> tuple[int, int] | None:
        """Return the number of a stream's type, which is one byte, and the offset after it."""
        return (data[0], 1) if data else None

    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        if expect in _STRAY_ZEROS:
            buffer.skip_zeros()
        return super().read_untrusted(expect, buffer, limits)


DEVELOP = register(
    DevelopDialect(
        "gomoqt-develop",
        features=attrs.evolve(transfork.FEATURES, update_keeps_range=False, max_age=False),
        quirks=Quirks(
            announce_full_paths=True,
            accept_before_groups=True,
            subscribes_early=True,
            fin_with_frame=True,
            stray_zeros=True,
            plain_codes=True,
        ),
        bidirectional=transfork.BIDIRECTIONAL,
        unidirectional=transfork.UNIDIRECTIONAL,
        reads=_READS,
        writes=_WRITES,
        alpns=("moq-00",),
        webtransport_protocols=(),
        handshakes=(HandshakeForm.PREFIXED,),
        number=0xFFFFFF00,
    )
)
